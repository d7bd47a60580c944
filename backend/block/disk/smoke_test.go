package disk_test

import (
	"bytes"
	"context"
	"testing"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/disk/disktest"
	"drystone.example/drystone/backend/model"
)

func TestSmoke(t *testing.T) {
	ctx := context.Background()
	v := disktest.New(1, 32<<20)
	if _, err := v.Format(ctx, 7); err != nil {
		t.Fatal(err)
	}
	d, err := v.Open(ctx, disk.Options{Cluster: 7})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Prepare(ctx, disk.Prepare{Volume: 1, Generation: 1}); err != nil {
		t.Fatal(err)
	}
	op := writeOp(1, 1, 0, 5, 30, 3)
	if err := apply(d, op); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		dst := make([]byte, 40*4096)
		sums := make([]uint32, 40)
		err = d.Read(ctx, disk.Read{Volume: 1, Generation: 1, Block: 0, Count: 40}, dst, sums)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(dst[5*4096:35*4096], op.Data.Bytes) {
			t.Error("differs")
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if d, err = v.Open(ctx, disk.Options{Cluster: 7}); err != nil {
			t.Fatal(err)
		}
	}
	_ = model.Bytes(0)
	t.Log(d.Usage(), d.Stats())
	d.Close()
}
