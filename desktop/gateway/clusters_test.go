//go:build linux

package gateway_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/api/apitest"
	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/pki"
	"drystone.example/drystone/desktop/gateway"
)

// An address and a join string both lead to the cluster; only the join string
// spares a person from comparing the CA.
func TestProbe(t *testing.T) {
	n, a := startNode(t), startApp(t)
	pin := n.ca.Pin()
	for _, c := range []struct {
		name, typed string
		vouched     bool
	}{
		{"address", n.address, false},
		{"address of the page", " https://" + n.address + "/vms ", false},
		{"join string", pki.JoinString{Address: n.address, CA: pin}.String(), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got gateway.Probe
			a.must(t, http.StatusOK, request{
				method: "POST", path: "/desk/v1/probe", body: map[string]string{"address": c.typed},
			}, &got)
			want := gateway.Probe{
				ClusterID: cluster, ClusterName: "demo", Address: n.address, CA: pin.String(), Vouched: c.vouched,
			}
			if got != want {
				t.Errorf("probe of %q = %+v, want %+v", c.typed, got, want)
			}
		})
	}
	n.requests()
	for _, typed := range []string{
		"", "the node in the cellar", "admin@" + n.address, "dryapp1:" + n.address + ":xyz",
	} {
		a.refused(t, http.StatusBadRequest, model.Invalid, request{
			method: "POST", path: "/desk/v1/probe", body: map[string]string{"address": typed},
		})
	}
	if asked := n.requests(); len(asked) != 0 {
		t.Errorf("what is no address led to a request for %s", asked[0].URL)
	}
}

// A join string of another cluster's CA gets no request through, not even the
// question for a name.
func TestProbeByForeignJoinString(t *testing.T) {
	n, a := startNode(t), startApp(t)
	foreign := pki.JoinString{Address: n.address, CA: newCA(t, cluster).Pin()}
	a.refused(t, http.StatusBadGateway, "untrusted", request{
		method: "POST", path: "/desk/v1/probe", body: map[string]string{"address": foreign.String()},
	})
	if asked := n.requests(); len(asked) != 0 {
		t.Errorf("the node was asked %s", asked[0].URL)
	}
}

// A cluster that is added is in the list after the next start too, with its CA, its
// other nodes and a session that works; the session is the vault's alone.
func TestAdd(t *testing.T) {
	n, a := startNode(t), startApp(t)
	added := a.introduce(t, n)
	if !added.LoggedIn || added.Name != "demo" || added.CA != n.ca.Pin().String() || added.User != "owner" {
		t.Errorf("added %+v", added)
	}
	// The second is where the record says that the nodes are.
	if want := []string{n.address, "127.0.0.1:8443"}; !slices.Contains(added.Endpoints, want[1]) ||
		added.Endpoints[0] != want[0] {
		t.Errorf("addresses %q, want %q", added.Endpoints, want)
	}
	kept, err := a.store.Get(t.Context(), cluster)
	if err != nil || kept.Pin != n.ca.Pin() {
		t.Errorf("the list keeps %+v, %v", kept, err)
	}
	token, err := a.vault.Get(cluster)
	if err != nil {
		t.Fatalf("the vault has no session: %v", err)
	}
	session, err := n.With(t, token).Session(t.Context())
	if err != nil || session.User.Name != "owner" {
		t.Errorf("the session is %+v, %v", session, err)
	}
	var list schema.List[gateway.Cluster]
	a.must(t, http.StatusOK, request{method: "GET", path: "/desk/v1/clusters"}, &list)
	if len(list.Items) != 1 || list.Items[0].ID != cluster {
		t.Errorf("list of clusters = %+v", list.Items)
	}
}

// Who cannot log in adds nothing.
func TestAddRefused(t *testing.T) {
	n, a := startNode(t), startApp(t)
	good := gateway.Add{
		Address: n.address, CA: n.ca.Pin().String(), User: "owner", Password: apitest.Password, Color: "#188379",
	}
	for _, c := range []struct {
		name   string
		change func(*gateway.Add)
		status int
		code   model.Code
	}{
		{"password", func(a *gateway.Add) { a.Password = "wrong" }, http.StatusUnauthorized, model.Unknown},
		{"CA", func(a *gateway.Add) { a.CA = newCA(t, cluster).Pin().String() }, http.StatusBadGateway, "untrusted"},
		{"no CA", func(a *gateway.Add) { a.CA = "" }, http.StatusBadRequest, model.Invalid},
		{"colour", func(a *gateway.Add) { a.Color = "red;x" }, http.StatusBadRequest, model.Invalid},
		{"address", func(a *gateway.Add) { a.Address = "127.0.0.1:1" }, http.StatusBadGateway, "unreachable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bad := good
			c.change(&bad)
			a.refused(t, c.status, c.code, request{method: "POST", path: "/desk/v1/clusters", body: bad})
			list, err := a.store.List(t.Context())
			if err != nil || len(list) != 0 {
				t.Errorf("the list holds %+v, %v", list, err)
			}
			if _, err := a.vault.Get(cluster); model.CodeOf(err) != model.NotFound {
				t.Errorf("the vault holds a session: %v", err)
			}
		})
	}
}

// A cluster that claims the identity of one in the list does not take its place.
func TestAddImpostor(t *testing.T) {
	first, other, a := startNode(t), startNode(t), startApp(t)
	a.introduce(t, first)
	before, err := a.store.Get(t.Context(), cluster)
	if err != nil {
		t.Fatal(err)
	}
	a.refused(t, http.StatusConflict, model.Conflict, request{method: "POST", path: "/desk/v1/clusters", body: gateway.Add{
		Address: other.address, CA: other.ca.Pin().String(), User: "owner", Password: apitest.Password, Color: "#188379",
	}})
	after, err := a.store.Get(t.Context(), cluster)
	if diff := cmp.Diff(before, after); err != nil || diff != "" {
		t.Errorf("the list changed: %v %s", err, diff)
	}
	a.must(t, http.StatusOK, request{method: "GET", path: api("/cluster")}, nil)
	if asked := first.requests(); len(asked) != 1 {
		t.Errorf("the cluster got %d requests, want 1", len(asked))
	}
}

// Removing a cluster ends its session there and forgets it here.
func TestRemove(t *testing.T) {
	n, a := startNode(t), startApp(t)
	a.introduce(t, n)
	token, err := a.vault.Get(cluster)
	if err != nil {
		t.Fatal(err)
	}
	a.must(t, http.StatusNoContent, request{method: "DELETE", path: "/desk/v1/clusters/" + cluster.String()}, nil)
	_, err = n.With(t, token).Session(t.Context())
	apitest.CodeIs(t, "the session after the cluster was removed", err, model.Unknown)
	_, err = a.vault.Get(cluster)
	apitest.CodeIs(t, "the vault", err, model.NotFound)
	a.refused(t, http.StatusNotFound, model.NotFound, request{method: "GET", path: api("/cluster")})
}

// Colour and the read-only switch are changed one at a time, and read-only keeps
// every change and every console from the cluster, but no look at it.
func TestReadOnly(t *testing.T) {
	n, a := startNode(t), startApp(t)
	a.introduce(t, n)
	path := "/desk/v1/clusters/" + cluster.String()
	var c gateway.Cluster
	a.must(t, http.StatusOK, request{method: "PATCH", path: path, body: map[string]any{"read_only": true}}, &c)
	if !c.ReadOnly || c.Color != "#188379" {
		t.Errorf("changed to %+v", c)
	}
	n.requests()
	volume := schema.VolumeSpec{Name: "v", Size: 1 << 30, Copies: 2}
	for _, q := range []request{
		{method: "POST", path: api("/volumes"), body: volume},
		{method: "DELETE", path: api("/volumes/v")},
		{method: "PATCH", path: api("/volumes/v"), body: schema.VolumeChange{Size: 2 << 30}},
		{method: "GET", path: api("/vms/x/console/serial")},
	} {
		a.refused(t, http.StatusForbidden, model.Denied, q)
	}
	if asked := n.requests(); len(asked) != 0 {
		t.Errorf("the node was asked %s %s", asked[0].Method, asked[0].URL)
	}
	a.must(t, http.StatusOK, request{method: "GET", path: api("/volumes")}, nil)
	a.must(t, http.StatusOK, request{method: "PATCH", path: path, body: map[string]any{"read_only": false}}, nil)
	a.must(t, http.StatusOK, request{method: "POST", path: api("/volumes"), body: volume}, nil)
}
