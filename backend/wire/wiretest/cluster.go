package wiretest

import (
	"testing"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/pki"
)

// A Cluster is an authority for tests.
type Cluster struct {
	ID model.ClusterID
	CA *pki.CA
}

// NewCluster makes an authority. In a bubble it must be made in the bubble: its
// certificates are of that time.
func NewCluster(tb testing.TB) *Cluster {
	tb.Helper()
	id := model.NewID[model.ClusterID]()
	ca, err := pki.NewCA(id)
	if err != nil {
		tb.Fatalf("NewCA: %v", err)
	}
	return &Cluster{ID: id, CA: ca}
}

// Keeper makes a node's certificates in a temporary folder.
func (c *Cluster) Keeper(tb testing.TB, node model.NodeID, addresses ...string) *pki.Keeper {
	tb.Helper()
	dir := tb.TempDir()
	key, err := pki.NewKey()
	if err != nil {
		tb.Fatalf("NewKey: %v", err)
	}
	request, err := key.Request()
	if err != nil {
		tb.Fatalf("Request: %v", err)
	}
	certs, err := c.CA.Issue(request, node, addresses)
	if err != nil {
		tb.Fatalf("Issue: %v", err)
	}
	if err := pki.Save(dir, key, certs); err != nil {
		tb.Fatalf("Save: %v", err)
	}
	k, err := pki.OpenKeeper(dir)
	if err != nil {
		tb.Fatalf("OpenKeeper: %v", err)
	}
	return k
}
