package agent

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/server"
	"drystone.example/drystone/backend/meta"
	"drystone.example/drystone/backend/model"
)

// over is a lease that has been over for some time.
type over time.Duration

func (o over) Valid() bool         { return o <= 0 }
func (o over) Over() time.Duration { return time.Duration(o) }

// A node without a lease keeps its disks open for a while, and has closed them when
// another may claim them.
func TestDisksAreClosedWithoutALease(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if _, err := disk.Format(t.Context(), path, disk.FormatOptions{Cluster: 1, Size: 128 << 20, Sparse: true}); err != nil {
		t.Fatal(err)
	}
	d, err := disk.Open(t.Context(), path, disk.Options{Cluster: 1})
	if err != nil {
		t.Fatal(err)
	}
	a := &Agent{
		cfg: Config{Cluster: 1, Server: server.New(server.Config{})}, log: slog.New(slog.DiscardHandler),
		ctx: t.Context(), disks: newDisks(), finds: newFinds(), saving: make(chan struct{}, 1),
	}
	a.serveDisk(d, path)
	if err := a.tendDisks(t.Context(), over(meta.LeaseDisks-1)); err != nil {
		t.Fatal(err)
	}
	if _, err := disk.Open(t.Context(), path, disk.Options{Cluster: 1}); model.CodeOf(err) != model.Conflict {
		t.Fatalf("the disk was closed too early: another opened it with %v", err)
	}
	if err := a.tendDisks(t.Context(), over(meta.LeaseDisks)); err != nil {
		t.Fatal(err)
	}
	if _, open := a.disks.get(d.ID()); open {
		t.Error("a disk is in service without a lease")
	}
	again, err := disk.Open(t.Context(), path, disk.Options{Cluster: 1})
	if err != nil {
		t.Fatalf("the disk was not closed: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

// What is found is found once, in a file that was given or beside one, and not where it
// is another cluster's.
func TestSearch(t *testing.T) {
	dir := t.TempDir()
	format := func(name string, cluster model.ClusterID) (model.DiskID, string) {
		path := filepath.Join(dir, name)
		id, err := disk.Format(t.Context(), path, disk.FormatOptions{Cluster: cluster, Size: 128 << 20, Sparse: true})
		if err != nil {
			t.Fatal(err)
		}
		return id, path
	}
	given, path := format("given", 1)
	beside, _ := format("beside", 1)
	foreign, _ := format("foreign", 2)
	a := &Agent{
		cfg: Config{Cluster: 1, Disks: []string{path, filepath.Join(dir, "nothing")}},
		log: slog.New(slog.DiscardHandler), finds: newFinds(),
	}
	found := a.search(nil)
	if len(found) != 2 || len(found[given]) != 1 || len(found[beside]) != 1 || found[foreign] != nil {
		t.Errorf("found %+v, want %s and %s once each", found, given, beside)
	}
}
