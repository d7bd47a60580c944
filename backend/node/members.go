package node

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"time"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/pki"
)

// The calls by which nodes ask one that can sign.
const (
	callJoin  = "cluster.join"  // anybody's join request, with the token's secret
	callRenew = "cluster.renew" // the calling node's own certificates
	callSeal  = "cluster.seal"  // the seal key, for a voter
)

// RemoveNode takes a node out. One that is away is taken for lost; one that is up is
// refused while there is data on its disks.
func (s service) RemoveNode(ctx context.Context, by model.Actor, id model.NodeID) error {
	lost := !s.n.up(id) && id != s.n.cfg.Node
	if !lost {
		view, err := s.n.meta.View(ctx)
		if err != nil {
			return err
		}
		if full := disksInUse(view, id); len(full) > 0 {
			return model.Errorf(model.Conflict, "the node still has data on its disks; "+
				"move it elsewhere first, with: drystone disk remove --wait %s", full[0])
		}
	}
	_, err := s.n.meta.Apply(ctx, by, command.NodeRemove{Node: id, Lost: lost})
	return err
}

// disksInUse lists the disks of a node that a column has a member on.
func disksInUse(view *state.View, id model.NodeID) (full []model.DiskID) {
	for _, d := range view.Disks() {
		used := slices.ContainsFunc(view.Volumes(), func(v model.Volume) bool {
			return slices.ContainsFunc(v.Columns, func(c model.Column) bool {
				_, member := c.Member(d.ID)
				return member
			})
		})
		if d.Node == id && used {
			full = append(full, d.ID)
		}
	}
	return full
}

// CreateToken draws a join token; only the digest of its secret is recorded.
func (s service) CreateToken(ctx context.Context, by model.Actor, spec schema.TokenSpec) (schema.NewToken, error) {
	if spec.TTL == 0 {
		spec.TTL = int64(time.Hour / time.Second)
	}
	if spec.Uses == 0 {
		spec.Uses = 1
	}
	pins := s.n.keeper.Pins()
	// While the root is replaced nodes show the one before or one that it vouches for.
	token := pki.NewToken(pins[len(pins)-1].Fingerprint())
	expires := time.Now().Add(time.Duration(spec.TTL) * time.Second).UTC().Truncate(time.Second)
	_, err := s.n.meta.Apply(ctx, by, command.TokenCreate{Token: model.JoinToken{
		ID: token.ID, SecretHash: pki.HashSecret(token.Secret), Name: spec.Name, Uses: spec.Uses, Expires: expires,
	}})
	if err != nil {
		return schema.NewToken{}, err
	}
	return schema.NewToken{ID: token.ID, Token: token.Reveal(), Expires: expires, Uses: spec.Uses}, nil
}

// A joinCall is a join request on its way to a node that can sign.
type joinCall struct {
	From    string             `json:"from"`
	Request schema.JoinRequest `json:"request"`
}

// errToken is the one answer to every token that does not open the door.
var errToken = model.Errorf(model.Denied, "the token is not one of this cluster's, was used, or has run out")

// Join redeems a token and makes the joiner's certificates, here or on the leader.
func (s service) Join(ctx context.Context, from string, req schema.JoinRequest) (schema.JoinAnswer, error) {
	if s.n.sealed() {
		leader, known := s.n.meta.Leader()
		if !known || leader == s.n.cfg.Node {
			return schema.JoinAnswer{}, model.Errorf(model.Unavailable, "no node that can admit another is in reach; try again")
		}
		var out schema.JoinAnswer
		err := s.n.wire.Call(ctx, leader, callJoin, joinCall{from, req}, &out)
		return out, err
	}
	return s.join(ctx, from, req)
}

func (s service) join(ctx context.Context, from string, req schema.JoinRequest) (schema.JoinAnswer, error) {
	if err := model.ValidateName("node", req.Name); err != nil {
		return schema.JoinAnswer{}, err
	}
	if err := validAddress(req.Address); err != nil {
		return schema.JoinAnswer{}, err
	}
	key, err := requestKey(req.CSR)
	if err != nil {
		return schema.JoinAnswer{}, err
	}
	cfg := Config{Address: req.Address}
	actor := model.Actor{User: "token " + req.TokenID, Address: from}
	out, err := s.n.meta.Apply(ctx, actor, command.TokenRedeem{
		Token: req.TokenID, SecretHash: pki.HashSecret(model.NewSecret(req.Secret)), KeyHash: key,
		Node: model.Node{
			ID: model.NewID[model.NodeID](), Name: req.Name, Address: req.Address, API: cfg.URL(), Version: req.Version,
		},
	})
	switch model.CodeOf(err) { //nolint:exhaustive // the rest is passed on as it is
	case "":
	case model.Unknown, model.Denied:
		return schema.JoinAnswer{}, errToken
	default:
		return schema.JoinAnswer{}, err
	}
	node := out.(model.Node) //nolint:errcheck,forcetypeassert // the command says what it returns
	return s.admit(ctx, node, req.CSR)
}

// admit makes the answer for a node that is in the record.
func (s service) admit(ctx context.Context, node model.Node, csr []byte) (schema.JoinAnswer, error) {
	view, err := s.n.meta.View(ctx)
	if err != nil {
		return schema.JoinAnswer{}, err
	}
	cluster, _ := view.Cluster()
	certs, err := s.n.issue(ctx, node.ID, csr)
	if err != nil {
		return schema.JoinAnswer{}, err
	}
	gossip, err := rawKeys(cluster)
	if err != nil {
		return schema.JoinAnswer{}, err
	}
	answer := schema.JoinAnswer{
		ClusterID: cluster.ID, ClusterName: cluster.Name, NodeID: node.ID,
		NodeCert: certs.Node, WebCert: certs.Web, Roots: certs.Roots, GossipKeys: gossip,
	}
	for _, n := range view.Nodes() {
		if n.ID != node.ID {
			answer.Peers = append(answer.Peers, schema.JoinPeer{ID: n.ID, Name: n.Name, Address: n.Address})
		}
	}
	return answer, nil
}

// issue signs certificates for a member and records their serial.
func (n *node) issue(ctx context.Context, id model.NodeID, csr []byte) (pki.Certificates, error) {
	view, err := n.meta.View(ctx)
	if err != nil {
		return pki.Certificates{}, err
	}
	rec, err := view.Node(id)
	if err != nil {
		return pki.Certificates{}, err
	}
	ca, err := n.authority(view)
	if err != nil {
		return pki.Certificates{}, err
	}
	if block, _ := pem.Decode(csr); block != nil {
		csr = block.Bytes
	}
	certs, err := ca.Issue(csr, id, []string{rec.Address, rec.Name})
	if err != nil {
		return pki.Certificates{}, fmt.Errorf("issue certificates: %w", err)
	}
	serial, err := certs.Serial()
	if err != nil {
		return pki.Certificates{}, fmt.Errorf("issue certificates: %w", err)
	}
	if _, err := n.meta.Apply(ctx, model.System, command.NodeUpdate{Node: id, Serial: serial}); err != nil {
		return pki.Certificates{}, fmt.Errorf("record certificates: %w", err)
	}
	return certs, nil
}

// authority unseals the cluster's CA for as long as the caller keeps it.
func (n *node) authority(view *state.View) (*pki.CA, error) {
	cluster, ok := view.Cluster()
	seal, err := pki.LoadSealKey(n.dir.SealKey())
	if !ok || err != nil {
		return nil, model.Errorf(model.Unavailable, "this node cannot sign certificates")
	}
	sealed, err := base64.StdEncoding.DecodeString(cluster.CAKey.Reveal())
	if err != nil {
		return nil, fmt.Errorf("read cluster's key: %w", err)
	}
	key, err := pki.Open(seal, sealed)
	if err != nil {
		return nil, fmt.Errorf("unseal cluster's key: %w", err)
	}
	return pki.LoadCA(publicOf(cluster), key)
}

// sealed reports whether this node lacks the key that unseals the CA.
func (n *node) sealed() bool {
	_, err := pki.LoadSealKey(n.dir.SealKey())
	return err != nil
}

// renew asks the leader for new certificates of this node.
func (n *node) renew(ctx context.Context, request []byte) (certs pki.Certificates, err error) {
	leader, known := n.meta.Leader()
	if !known {
		return certs, model.Errorf(model.Unavailable, "there is no leader to sign certificates")
	}
	err = n.wire.Call(ctx, leader, callRenew, request, &certs)
	return certs, err
}

// handleMembers registers what a node answers that can sign. Each looks at who
// calls, and at the record: that a caller is a node is not enough.
func (n *node) handleMembers() {
	n.wire.Handle(callJoin, func(ctx context.Context, _ model.NodeID, body json.RawMessage) (any, error) {
		var call joinCall
		if err := json.Unmarshal(body, &call); err != nil {
			return nil, model.Errorf(model.Invalid, "read request: %w", err)
		}
		if n.sealed() {
			return nil, model.Errorf(model.Unavailable, "this node cannot admit others")
		}
		return service{n}.join(ctx, call.From, call.Request)
	})
	n.wire.Handle(callRenew, func(ctx context.Context, peer model.NodeID, body json.RawMessage) (any, error) {
		var request []byte
		if err := json.Unmarshal(body, &request); err != nil {
			return nil, model.Errorf(model.Invalid, "read request: %w", err)
		}
		return n.issue(ctx, peer, request)
	})
	n.wire.Handle(callRotateCA, n.handleRotateCA)
	n.wire.Handle(callMoved, n.handleMoved)
	n.wire.Handle(callSeal, func(ctx context.Context, peer model.NodeID, _ json.RawMessage) (any, error) {
		view, err := n.meta.View(ctx)
		if err != nil {
			return nil, err
		}
		rec, err := view.Node(peer)
		if err != nil {
			return nil, err
		}
		if !rec.Voter {
			return nil, model.Errorf(model.Denied, "only voters keep the seal key")
		}
		key, err := pki.LoadSealKey(n.dir.SealKey())
		if err != nil {
			return nil, model.Errorf(model.Unavailable, "this node has no seal key")
		}
		return key.Reveal(), nil
	})
}

// fetchSeal brings the seal key to a node that became a voter. It reports whether
// there is nothing left to do.
func (n *node) fetchSeal(ctx context.Context) bool {
	rec, err := n.meta.Local().Node(n.cfg.Node)
	if err != nil || !rec.Voter || !n.sealed() {
		return err == nil && !n.sealed()
	}
	leader, known := n.meta.Leader()
	if !known || leader == n.cfg.Node {
		return false
	}
	var raw []byte
	if err := n.wire.Call(ctx, leader, callSeal, struct{}{}, &raw); err != nil {
		return false
	}
	key, err := pki.SealKeyOf(raw)
	if err == nil {
		err = pki.SaveSealKey(n.dir.SealKey(), key)
	}
	if err != nil {
		n.log.Warn("seal key was not kept", "err", err)
		return false
	}
	return true
}

// requestKey names the key of a certificate request, DER or PEM, after checking
// that its owner signed it.
func requestKey(csr []byte) (string, error) {
	if block, _ := pem.Decode(csr); block != nil {
		csr = block.Bytes
	}
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return "", model.Errorf(model.Invalid, "the certificate request cannot be read")
	}
	if err := req.CheckSignature(); err != nil {
		return "", model.Errorf(model.Invalid, "the certificate request is not signed by its own key")
	}
	sum := sha256.Sum256(req.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:]), nil
}
