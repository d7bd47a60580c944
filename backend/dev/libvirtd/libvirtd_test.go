package libvirtd

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/proc"
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

// Started twice it is the same one; killed, it comes back under another process;
// stopped, nothing of it is left, also the second time.
func TestLifeOfALibvirtd(t *testing.T) {
	dir := nodeFolder(t)
	first, err := Start(t.Context(), dir, "gamma", uuid1)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Start(t.Context(), dir, "gamma", uuid1)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("the second Start started another one (-first +second):\n%s", diff)
	}
	for _, id := range []proc.ID{first.Libvirtd, first.Virtlogd} {
		if err := signal(t.Context(), id, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	back, err := Start(t.Context(), dir, "gamma", uuid1)
	if err != nil {
		t.Fatalf("Start after both were killed: %v", err)
	}
	if back.Libvirtd == first.Libvirtd || back.Virtlogd == first.Virtlogd {
		t.Errorf("processes after a kill are %+v, before %+v", back, first)
	}
	if got := strings.TrimSpace(virsh(t, back.URI, "hostname")); got != "gamma" {
		t.Errorf("hostname = %q, want gamma", got)
	}
	for range 2 {
		if err := Stop(t.Context(), dir); err != nil {
			t.Errorf("Stop: %v", err)
		}
	}
	if back.Libvirtd.Alive() || back.Virtlogd.Alive() {
		t.Error("a daemon lives after Stop")
	}
}

// A folder in which guests could not run is refused before anything is made there.
func TestRefusedFolders(t *testing.T) {
	top := t.TempDir()
	private := filepath.Join(top, "private")
	if err := os.Mkdir(private, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, parent := range []string{filepath.Dir(top), top} { // as others have them
		if err := os.Chmod(parent, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(top, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		filepath.Join(top, strings.Repeat("a", 100)): "choose a shorter folder",
		filepath.Join(private, "n"):                  "may not pass the folder " + private,
		filepath.Join(top, "a b"):                    "cannot stand in a URI",
		filepath.Join(file, "n"):                     "not a directory",
		file:                                         "is not a folder",
		"/var/lib/libvirt/n":                         "lies in libvirt's own",
	} {
		_, err := Start(t.Context(), dir, "delta", uuid1)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Start in %s = %v, want an error with %q", dir, err, want)
		}
		if _, err := os.Stat(filepath.Join(dir, "libvirt")); err == nil {
			t.Errorf("something was made in %s", dir)
		}
	}
	if err := Stop(t.Context(), filepath.Join(top, "never")); err != nil {
		t.Errorf("Stop where nothing ever ran = %v, want nil", err)
	}
}
