package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/client"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/pki"
	"drystone.example/drystone/desktop/store"
)

// A Cluster is one of the app's list, as the page sees it.
type Cluster struct {
	ID        model.ClusterID `json:"id"`
	Name      string          `json:"name"`
	Color     string          `json:"color"`
	ReadOnly  bool            `json:"read_only"`
	User      string          `json:"user"`
	LoggedIn  bool            `json:"logged_in"` // there is a session to use
	Endpoints []string        `json:"endpoints"`
	CA        string          `json:"ca_spki"` // the pin of the CA, as nodes print it
	Added     time.Time       `json:"added"`
}

// A Probe is who answered at an address, before anything is trusted.
type Probe struct {
	ClusterID   model.ClusterID `json:"cluster_id"`
	ClusterName string          `json:"cluster_name"`
	Address     string          `json:"address"`
	CA          string          `json:"ca_spki"`
	Vouched     bool            `json:"vouched"` // a join string named this CA
	Known       bool            `json:"known"`   // the cluster is in the list
}

// An Add asks for a cluster to be added: its CA is the one that the person
// compared, or that a join string named.
type Add struct {
	Address  string `json:"address"`
	CA       string `json:"ca_spki"`
	User     string `json:"user"`
	Password string `json:"password"`
	Color    string `json:"color"`
}

// A Change asks for settings to be changed; what is absent stays.
type Change struct {
	Color    *string `json:"color"`
	ReadOnly *bool   `json:"read_only"`
}

var colorPattern = regexp.MustCompile(`^#[0-9a-f]{6}$`)

// desk is the app's own API.
func (g *Gateway) desk() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, f func(http.ResponseWriter, *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			v, err := f(w, r)
			switch {
			case err != nil:
				refuseClient(w, err)
			case v == nil:
				w.WriteHeader(http.StatusNoContent)
			default:
				answer(w, v)
			}
		})
	}
	handle("GET /desk/v1/clusters", g.list)
	handle("POST /desk/v1/clusters", g.add)
	handle("PATCH /desk/v1/clusters/{cluster}", g.change)
	handle("DELETE /desk/v1/clusters/{cluster}", g.remove)
	handle("POST /desk/v1/probe", g.probe)
	return mux
}

func (g *Gateway) list(_ http.ResponseWriter, r *http.Request) (any, error) {
	known, err := g.store.List(r.Context())
	if err != nil {
		return nil, err
	}
	items := []Cluster{}
	for _, c := range known {
		item, err := g.show(r.Context(), c)
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return schema.ListOf(items), nil
}

func (g *Gateway) show(ctx context.Context, c store.Cluster) (Cluster, error) {
	u, err := g.upstream(ctx, c.ID)
	if err != nil {
		return Cluster{}, err
	}
	return Cluster{
		ID: c.ID, Name: c.Name, Color: c.Color, ReadOnly: c.ReadOnly, User: c.User,
		LoggedIn: u.loggedIn(), Endpoints: c.Endpoints, CA: c.Pin.String(), Added: c.Added,
	}, nil
}

// probe finds out who answers. With a join string the CA is known beforehand, and
// nobody else is talked to.
func (g *Gateway) probe(w http.ResponseWriter, r *http.Request) (any, error) {
	var in struct {
		Address string `json:"address"`
	}
	if err := readJSON(w, r, &in); err != nil {
		return nil, err
	}
	var p Probe
	var pin pki.Pin
	if strings.HasPrefix(strings.TrimSpace(in.Address), "dryapp1:") {
		j, err := pki.ParseJoinString(in.Address)
		if err != nil {
			return nil, err
		}
		p.Address, pin, p.Vouched = j.Address, j.CA, true
	} else {
		address, err := parseAddress(in.Address)
		if err != nil {
			return nil, err
		}
		if pin, err = presentedPin(r.Context(), address); err != nil {
			return nil, err
		}
		p.Address = address
	}
	meta, err := metaOf(r.Context(), newUpstream(pin, []string{p.Address}))
	if err != nil {
		return nil, err
	}
	_, err = g.store.Get(r.Context(), meta.ClusterID)
	p.ClusterID, p.ClusterName, p.CA, p.Known = meta.ClusterID, meta.ClusterName, pin.String(), err == nil
	return p, nil
}

// sameRoot sees to it that who claims to be a cluster that is known does not take its
// place.
func (g *Gateway) sameRoot(ctx context.Context, id model.ClusterID, pin pki.Pin) error {
	known, err := g.store.Get(ctx, id)
	if err != nil {
		return nil //nolint:nilerr // it is not known
	}
	u, err := g.upstream(ctx, id)
	if err != nil {
		return err
	}
	if u.trusted() != pin {
		return model.Errorf(model.Conflict,
			"this app knows cluster %s by another CA; remove it here first if its CA was replaced", known.Name)
	}
	return nil
}

// presentedPin is the pin of the CA that a server shows, which proves nothing: it
// is for a person to compare. Nothing is sent over this connection.
func presentedPin(ctx context.Context, address string) (pki.Pin, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var ca *x509.Certificate
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: &tls.Config{
		MinVersion:         tls.VersionTLS13,
		ServerName:         hostOf(address),
		InsecureSkipVerify: true, //nolint:gosec // nothing is sent; the pin is shown for comparison
		VerifyConnection: func(cs tls.ConnectionState) error {
			for _, c := range cs.PeerCertificates {
				if c.IsCA && ca == nil { // older roots may follow
					ca = c
				}
			}
			return nil
		},
	}}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return pki.Pin{}, model.Errorf(model.Unavailable, "nothing answers at %s: %w", address, err)
	}
	if err := conn.Close(); err != nil {
		return pki.Pin{}, model.Errorf(model.Unavailable, "the connection to %s broke: %w", address, err)
	}
	if ca == nil {
		return pki.Pin{}, model.Errorf(model.Invalid, "what answers at %s is not a node of Drystone", address)
	}
	return pki.PinOf(ca), nil
}

// metaOf asks who the cluster is, over a connection that proved the pinned CA.
func metaOf(ctx context.Context, u *upstream) (schema.Meta, error) {
	defer u.close()
	var meta schema.Meta
	err := u.each(ctx, func(c *client.Client) (err error) {
		meta, err = c.Meta(ctx)
		return err
	})
	if err != nil {
		return meta, err
	}
	if meta.Product != "drystone" || meta.ClusterID == 0 {
		return meta, model.Errorf(model.Invalid, "what answers there is not a node of Drystone")
	}
	return meta, nil
}

// add logs in to a cluster and keeps it. Nothing is kept if that fails.
func (g *Gateway) add(w http.ResponseWriter, r *http.Request) (any, error) {
	ctx := r.Context()
	var in Add
	if err := readJSON(w, r, &in); err != nil {
		return nil, err
	}
	pin, err := pki.ParsePin(in.CA)
	if err != nil {
		return nil, err
	}
	address, err := parseAddress(in.Address)
	if err != nil {
		return nil, err
	}
	if !colorPattern.MatchString(in.Color) {
		return nil, model.Errorf(model.Invalid, "%q is not a colour of the form #rrggbb", in.Color)
	}
	asked := newUpstream(pin, []string{address})
	meta, err := metaOf(ctx, asked)
	if err != nil {
		return nil, err
	}
	id := meta.ClusterID
	pin = asked.trusted()
	if err := g.sameRoot(ctx, id, pin); err != nil {
		return nil, err
	}
	u := newUpstream(pin, []string{address})
	result, err := g.startSession(ctx, id, u, schema.Login{User: in.User, Password: in.Password})
	if err != nil {
		u.close()
		return nil, err
	}
	c := store.Cluster{
		ID: id, Name: meta.ClusterName, Color: in.Color, User: result.User.Name,
		Pin: pin, Endpoints: []string{address}, Added: time.Now(),
	}
	if err := g.store.Put(ctx, c); err != nil {
		g.endSession(ctx, id, u)
		u.close()
		return nil, err
	}
	g.drop(id) // if it is added again, by what is known now
	u = g.adopt(id, u)
	if err := g.discover(ctx, id, u); err != nil {
		g.log.Warn("other nodes not found", "cluster", id.String(), "err", err)
	}
	if c, err = g.store.Get(ctx, id); err != nil {
		return nil, err
	}
	return g.show(ctx, c)
}

func (g *Gateway) change(w http.ResponseWriter, r *http.Request) (any, error) {
	var in Change
	if err := readJSON(w, r, &in); err != nil {
		return nil, err
	}
	if in.Color != nil && !colorPattern.MatchString(*in.Color) {
		return nil, model.Errorf(model.Invalid, "%q is not a colour of the form #rrggbb", *in.Color)
	}
	id, err := clusterOf(r)
	if err != nil {
		return nil, err
	}
	c, err := g.store.Update(r.Context(), id, func(c *store.Cluster) {
		if in.Color != nil {
			c.Color = *in.Color
		}
		if in.ReadOnly != nil {
			c.ReadOnly = *in.ReadOnly
		}
	})
	if err != nil {
		return nil, err
	}
	return g.show(r.Context(), c)
}

// remove ends the session and forgets the cluster.
func (g *Gateway) remove(_ http.ResponseWriter, r *http.Request) (any, error) {
	id, err := clusterOf(r)
	if err != nil {
		return nil, err
	}
	u, err := g.upstream(r.Context(), id)
	if err != nil {
		return nil, err
	}
	g.endSession(r.Context(), id, u)
	if err := g.store.Delete(r.Context(), id); err != nil {
		return nil, err
	}
	g.drop(id)
	return nil, nil
}

func clusterOf(r *http.Request) (id model.ClusterID, err error) {
	if err := id.UnmarshalText([]byte(r.PathValue("cluster"))); err != nil {
		return 0, model.Errorf(model.NotFound, "this app knows no such cluster")
	}
	return id, nil
}
