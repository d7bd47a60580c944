package conformance

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"drystone.example/drystone/tests/internal/devcluster"
)

var (
	long = flag.Bool("conformance.long", false, "large sizes and many rounds")
	seed = flag.Uint64("conformance.seed", 1, "what is random is made from it")
)

// TestConformance has all tools judge volumes of one cluster. Each part has volumes
// of its own.
func TestConformance(t *testing.T) {
	s := &suite{devcluster.Up(t, "127.0.230", "--disks", "2", "--disk-size", "1G", "--storage-only")}
	t.Run("fio", s.fio)
	t.Run("qemu-img compare", s.compare)
	t.Run("blkverify", s.blkverify)
	t.Run("blkverify under fio", s.blkverifyUnderLoad)
	t.Run("nbdinfo --map", s.nbdinfo)
	t.Run("nbdcopy", s.nbdcopy)
	t.Run("multi-conn", s.multiConn)
	t.Run("snapshot", s.snapshot)
	t.Run("dirty-since", s.dirtySince)
	if *long { // as far as a machine without KVM is quick
		t.Run("guest", s.guest)
	}
}

// A suite is the cluster that is judged.
type suite struct{ c *devcluster.Cluster }

// volume makes a volume that goes when the test ends.
func (s *suite) volume(t *testing.T, name, size string) {
	t.Helper()
	s.c.Must(t, "volume", "create", name, size)
	t.Cleanup(func() {
		// The node lets go of a volume a moment after its export has ended.
		devcluster.Eventually(t, 10*time.Second, name+" can be deleted", func() bool {
			return s.c.Run("volume", "delete", name, "--yes").Status == 0
		})
	})
}

// nbd serves a volume from a node until it is stopped or the test ends.
func (s *suite) nbd(t *testing.T, name, node string) *devcluster.Export {
	t.Helper()
	return s.c.Export(t, "nbd", name, node)
}

// pick is what a quick run takes, or a long one.
func pick[T any](quick, thorough T) T {
	if *long {
		return thorough
	}
	return quick
}

// try runs an outside program to its end and returns all it said. One that is not
// installed is a failure, for then nothing was shown.
func try(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing; make deps installs it: %v", name, err)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Dir = t.TempDir() // fio leaves files where it runs
	err = cmd.Run()
	return out.String(), err
}

// tool is try for what must succeed.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := try(t, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, devcluster.Tail(strings.Join(args, " "), 5), err, devcluster.Tail(out, 30))
	}
	return out
}

// random is the source of a part's numbers; the parts do not share one, so that
// each can be run alone.
func random(t *testing.T) *rand.ChaCha8 {
	t.Helper()
	t.Logf("seed %d", *seed)
	return rand.NewChaCha8(sha256.Sum256(fmt.Appendf(nil, "%s %d", t.Name(), *seed)))
}

// rawFile makes a file of zeros of so many bytes.
func rawFile(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "twin.raw")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// flip changes one byte of a file.
func flip(t *testing.T, path string, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // what could fail was done
	p := []byte{0}
	if _, err := f.ReadAt(p, at); err != nil {
		t.Fatal(err)
	}
	p[0] ^= 0x10
	if _, err := f.WriteAt(p, at); err != nil {
		t.Fatal(err)
	}
}
