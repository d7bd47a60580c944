package server_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/server"
	"drystone.example/drystone/backend/model"
)

var _ server.Disk = (*disk.Disk)(nil)

func openDisk(t *testing.T, path string, cluster model.ClusterID) *disk.Disk {
	t.Helper()
	d, err := disk.Open(t.Context(), path, disk.Options{Cluster: cluster})
	if err != nil {
		t.Fatalf("disk.Open: %v", err)
	}
	return d
}

// checkPage reads page 2 of volume 42 in all three ways.
func checkPage(t *testing.T, remote *server.Remote, want []byte, sums ...uint32) {
	t.Helper()
	ctx := t.Context()
	got, gotSums := make([]byte, len(want)), make([]uint32, 16)
	q := disk.Read{Volume: 42, Generation: 1, Block: 32, Count: 16}
	if err := remote.Read(ctx, q, got, gotSums); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("Read: %v, or other data", err)
	}
	for i, sum := range sums {
		if gotSums[i] != sum {
			t.Errorf("the sum of block %d is %x, want %x", i, gotSums[i], sum)
		}
	}
	list, err := remote.List(ctx, disk.List{Volume: 42, Generation: 1, Max: 10})
	if err != nil || len(list.Versions) != 1 || list.Versions[0].Page != 2 || list.Versions[0].Mask != 0xffff || !list.Done {
		t.Fatalf("List = %+v, %v", list, err)
	}
	page := make([]byte, model.PageSize)
	v, err := remote.ReadVersion(ctx, 42, 1, 0, 2, 0, page)
	if err != nil || !v.Equal(list.Versions[0]) || !bytes.Equal(page, want) {
		t.Errorf("ReadVersion = %+v, %v", v, err)
	}
}

// A row of a real disk behind the wire: the promise is asked for, writes are in
// order, the generation is judged, what was sent twice is applied once, and all of
// it is there after the node came back.
func TestRealDisk(t *testing.T) {
	r := newRig(t, nil, server.Config{})
	path := filepath.Join(t.TempDir(), "disk")
	id, err := disk.Format(t.Context(), path, disk.FormatOptions{Cluster: r.cluster.ID, Size: 512 << 20, Journal: 64 << 20})
	if err != nil {
		t.Fatalf("disk.Format: %v", err)
	}
	d := openDisk(t, path, r.cluster.ID)
	r.server.Add(id, d)
	remote := r.client.Disk(store, id)
	ctx := t.Context()

	w := &writes{volume: 42}
	data, sums := payload(16, 5)
	first := w.next(32, data, sums)
	if err := apply(remote, first); err == nil {
		t.Error("a write without a promise was applied")
	}
	if _, err := remote.Prepare(ctx, disk.Prepare{Volume: 42, Generation: 1}); err != nil {
		t.Fatalf("Prepare: %v", err)
	}
	small, smallSums := payload(1, 9)
	second := w.next(33, small, smallSums)
	if err := apply(remote, second); !errors.Is(err, disk.ErrGap) {
		t.Errorf("the second before the first: %v; want disk.ErrGap", err)
	}
	for _, op := range []*disk.Op{first, second, first, second} {
		if err := apply(remote, op); err != nil {
			t.Fatalf("Apply %d: %v", op.Number, err)
		}
	}
	want := append([]byte(nil), data.Bytes...)
	copy(want[4096:], small.Bytes)
	checkPage(t, remote, want, sums[0], smallSums[0])

	// The node goes away and comes back.
	r.server.Remove(id)
	r.halt()
	if err := d.Close(); err != nil {
		t.Fatalf("disk.Close: %v", err)
	}
	d = openDisk(t, path, r.cluster.ID)
	t.Cleanup(func() { _ = d.Close() })
	r.server.Add(id, d)
	r.start()
	for {
		err := apply(remote, second) // sent again until it is there
		if err == nil {
			break
		}
		if model.CodeOf(err) != model.Unavailable {
			t.Fatalf("Apply after the restart: %v", err)
		}
	}
	checkPage(t, remote, want, sums[0], smallSums[0])

	promise, err := remote.Prepare(ctx, disk.Prepare{Volume: 42, Generation: 2})
	if err != nil || len(promise.Uncertain) == 0 {
		t.Errorf("Prepare of the next generation = %+v, %v; want what is above the watermark", promise, err)
	}
	if err := apply(remote, w.next(34, small, smallSums)); model.CodeOf(err) != model.Fenced {
		t.Errorf("a write of the old generation: %v; want fenced", err)
	}
}
