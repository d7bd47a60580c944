package api_test

import (
	"bytes"
	"strings"
	"testing"

	"drystone.example/drystone/backend/api/apitest"
	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/model"
)

// A machine is exported, downloaded, also in parts, and made again of what came; who may
// not, and what is wrong, is refused.
func TestMachineAsFiles(t *testing.T) {
	r := apitest.New(t)
	ctx, c := t.Context(), r.As(t, model.Admin)
	if _, err := c.CreateVM(ctx, schema.VMSpec{
		Name: "m", CPUs: 1, Memory: 1 << 30, Disks: []schema.DiskFrom{{Size: 1 << 30}},
	}); err != nil {
		t.Fatal(err)
	}
	quiet := func(schema.VMExportEvent) {}
	_, err := r.As(t, model.Operator).ExportVM(ctx, "m", schema.VMExportSpec{Format: schema.ExportOVA}, quiet)
	apitest.CodeIs(t, "an operator", err, model.Denied)
	for what, spec := range map[string]schema.VMExportSpec{
		"a format":      {Format: "zip"},
		"a plain path":  {Format: schema.ExportOVA, Path: "m"},
		"a path around": {Format: schema.ExportOVA, Path: "/srv/../etc/x"},
	} {
		_, err := c.ExportVM(ctx, "m", spec, quiet)
		apitest.CodeIs(t, what, err, model.Invalid)
	}
	last, err := c.ExportVM(ctx, "m", schema.VMExportSpec{Format: schema.ExportQcow2}, quiet)
	if err != nil || last.Download == nil || last.Download.File != "m.tar" {
		t.Fatalf("ExportVM = %+v, %v", last, err)
	}
	id := last.Download.ID
	var b bytes.Buffer
	for from := model.Bytes(0); from < last.Download.Size; from += 4 {
		b.Truncate(int(from))
		if _, err := c.Download(ctx, id, from, &b); err != nil {
			t.Fatalf("from %d on: %v", from, err)
		}
		if b.String() != "machine m" {
			t.Errorf("from %d on came %q", from, b.String())
		}
	}
	apitest.CodeIs(t, "deleting somebody else's", r.As(t, model.Viewer).DeleteDownload(ctx, id), model.Denied)
	if err := c.DeleteDownload(ctx, id); err != nil {
		t.Fatal(err)
	}
	_, err = c.Download(ctx, id, 0, &b)
	apitest.CodeIs(t, "what was deleted", err, model.NotFound)

	for text, want := range map[string]model.Code{"machine m": model.Conflict, "junk": model.Invalid} {
		u, err := c.CreateUpload(ctx, schema.UploadSpec{Name: "x", Size: model.Bytes(len(text))})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.AppendUpload(ctx, u.ID, 0, []byte(text)); err != nil {
			t.Fatal(err)
		}
		_, _, err = c.ImportVM(ctx, u.ID, schema.VMImportSpec{}, ignore)
		apitest.CodeIs(t, text, err, want)
		if want == model.Invalid {
			continue
		}
		vm, notes, err := c.ImportVM(ctx, u.ID, schema.VMImportSpec{Name: "again"}, ignore)
		if err != nil || vm.Name != "again" || !strings.Contains(strings.Join(notes, ""), "left out") {
			t.Errorf("ImportVM = %+v, %q, %v", vm, notes, err)
		}
	}
}
