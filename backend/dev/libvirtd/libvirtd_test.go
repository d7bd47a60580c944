package libvirtd

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// nodeFolder makes a folder that the guests' user can reach, and ends what runs
// in it when the test ends.
func nodeFolder(t *testing.T) string {
	t.Helper()
	top, err := os.MkdirTemp("", "drystone-dev") //nolint:usetesting // guests' user passes
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(top, 0o755); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(top, "node1")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := Stop(ctx, dir); err != nil {
			t.Errorf("Stop: %v", err)
		}
		if err := os.RemoveAll(top); err != nil {
			t.Errorf("remove: %v", err)
		}
	})
	return dir
}

// virsh asks a libvirtd, so that our answers are checked by somebody else's client.
func virsh(t *testing.T, uri string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "virsh",
		append([]string{"-c", uri}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("virsh -c %s %v: %v\n%s", uri, args, err, out)
	}
	return string(out)
}

const (
	uuid1 = "11111111-2222-4333-8444-555555555501"
	uuid2 = "11111111-2222-4333-8444-555555555502"
)

// Two nodes' libvirtds live side by side, each under its own name and identity.
func TestLibvirtsSideBySide(t *testing.T) {
	for i, want := range []struct{ name, uuid string }{{"alpha", uuid1}, {"beta", uuid2}} {
		dir := nodeFolder(t)
		l, err := Start(t.Context(), dir, want.name, want.uuid)
		if err != nil {
			t.Fatalf("Start %d: %v", i, err)
		}
		if got := strings.TrimSpace(virsh(t, l.URI, "hostname")); got != want.name {
			t.Errorf("hostname of libvirtd %d = %q, want %q", i, got, want.name)
		}
		if caps := virsh(t, l.URI, "capabilities"); !strings.Contains(caps, want.uuid) {
			t.Errorf("capabilities of libvirtd %d do not have host uuid %s:\n%s", i, want.uuid, caps)
		}
	}
}
