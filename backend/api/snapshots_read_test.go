package api_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/api/apitest"
	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/model"
)

// reading is a rig with two volumes, of which one has two snapshots.
func reading(t *testing.T) *apitest.Rig {
	t.Helper()
	r := apitest.New(t)
	c := r.As(t, model.Admin)
	for _, name := range []string{"data", "more"} {
		if _, err := c.CreateVolume(t.Context(), schema.VolumeSpec{Name: name, Size: 1 << 30, Copies: 2}); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range [][2]string{{"data", "monday"}, {"data", "tuesday"}, {"more", "monday"}} {
		if _, err := c.CreateSnapshot(t.Context(), s[0], schema.SnapshotSpec{Name: s[1]}); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// A diff says first what is compared, then the ranges, and ends where the later side
// does; one that breaks off is an error.
func TestDiffSnapshot(t *testing.T) {
	r := reading(t)
	ctx, c := t.Context(), r.As(t, model.Admin)
	for _, until := range []string{"", "data@tuesday"} {
		var got []schema.SnapshotDiff
		err := c.DiffSnapshot(ctx, "data@monday", until, func(d schema.SnapshotDiff) error {
			got = append(got, d)
			return nil
		})
		if err != nil || len(got) != 3 {
			t.Fatalf("DiffSnapshot(%q) = %+v, %v", until, got, err)
		}
		head := got[0]
		if head.From == nil || head.From.Name != "monday" || head.Size != 1<<30 || head.Page != model.PageSize ||
			(head.To != nil) != (until != "") {
			t.Errorf("the first line of %q is %+v", until, head)
		}
		want := []schema.ByteRange{{Offset: model.PageSize, Length: 2 * model.PageSize}}
		if diff := cmp.Diff(want, got[1].Ranges); diff != "" || got[2].Done != 1<<30 {
			t.Errorf("it ends at %d with (-want +got):\n%s", got[2].Done, diff)
		}
	}
	ignore := func(schema.SnapshotDiff) error { return nil }
	for _, tc := range []struct {
		from, until string
		want        model.Code
	}{
		{"data@sunday", "", model.NotFound},
		{"data@monday", "data@sunday", model.NotFound},
		{"data@monday", "more@monday", model.Invalid},
		{"data@tuesday", "data@monday", model.Invalid},
	} {
		apitest.CodeIs(t, tc.from+" to "+tc.until, c.DiffSnapshot(ctx, tc.from, tc.until, ignore), tc.want)
	}
	apitest.CodeIs(t, "a viewer", r.As(t, model.Viewer).DiffSnapshot(ctx, "data@monday", "", ignore), model.Denied)
	r.Service.Set(func(s *apitest.Service) { s.Fail = model.Errorf(model.Unavailable, "nobody holds it") })
	apitest.CodeIs(t, "it breaks off", c.DiffSnapshot(ctx, "data@monday", "", ignore), model.Unavailable)
}

// A snapshot is served by nbd, and nothing else, for as long as the client stays.
func TestExportSnapshot(t *testing.T) {
	r := reading(t)
	c := r.As(t, model.Admin)
	nothing := func(string) {}
	apitest.CodeIs(t, "vhost", c.ExportSnapshot(t.Context(), "data@monday",
		schema.ExportSpec{Kind: schema.ExportVhost}, nothing), model.Invalid)
	apitest.CodeIs(t, "no such snapshot", c.ExportSnapshot(t.Context(), "data@sunday",
		schema.ExportSpec{Kind: schema.ExportNBD}, nothing), model.NotFound)
	apitest.CodeIs(t, "a path from afar", c.ExportSnapshot(t.Context(), "data@monday",
		schema.ExportSpec{Kind: schema.ExportNBD, Path: "/run/x"}, nothing), model.Denied)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ready := false
	err := c.ExportSnapshot(ctx, "data@monday", schema.ExportSpec{Kind: schema.ExportNBD}, func(string) {
		ready = true
		cancel()
	})
	if err != nil || !ready {
		t.Errorf("ExportSnapshot = %v, ready %v", err, ready)
	}
}

// The volumes of a machine are cut together or not at all, and say that they were.
func TestVMSnapshots(t *testing.T) {
	r := reading(t)
	ctx, c := t.Context(), r.As(t, model.Admin)
	disks := []schema.DiskFrom{{Volume: "data"}, {Volume: "more"}}
	if _, err := c.CreateVM(ctx, schema.VMSpec{Name: "web", CPUs: 1, Memory: 1 << 30, Disks: disks}); err != nil {
		t.Fatal(err)
	}
	made, err := c.CreateVMSnapshots(ctx, "web", schema.SnapshotSpec{Name: "both"})
	if err != nil || len(made.Items) != 2 || made.Items[0].VolumeName != "data" || made.Items[1].VolumeName != "more" {
		t.Fatalf("CreateVMSnapshots = %+v, %v", made, err)
	}
	for _, s := range made.Items {
		if s.Name != "both" || s.Group != made.Items[0].ID || s.Created != made.Items[0].Created {
			t.Errorf("the snapshots are %+v", made.Items)
		}
	}
	if s, err := c.Snapshot(ctx, "data@monday"); err != nil || s.Group != 0 {
		t.Errorf("one that was cut alone is %+v, %v", s, err)
	}
	_, err = c.CreateVMSnapshots(ctx, "web", schema.SnapshotSpec{Name: "tuesday"}) // which data has
	apitest.CodeIs(t, "a name that one volume has", err, model.Conflict)
	if l, err := c.Snapshots(ctx, "more"); err != nil || len(l.Items) != 2 {
		t.Errorf("after that the other volume has %+v, %v", l.Items, err)
	}
	_, err = c.CreateVMSnapshots(ctx, "none", schema.SnapshotSpec{Name: "x"})
	apitest.CodeIs(t, "no such vm", err, model.NotFound)
	_, err = c.CreateVMSnapshots(ctx, "web", schema.SnapshotSpec{Name: "a@b"})
	apitest.CodeIs(t, "a name with an @", err, model.Invalid)
	_, err = r.As(t, model.Operator).CreateVMSnapshots(ctx, "web", schema.SnapshotSpec{Name: "x"})
	apitest.CodeIs(t, "an operator", err, model.Denied)
}
