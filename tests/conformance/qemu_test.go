package conformance

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"drystone.example/drystone/tests/internal/devcluster"
)

// twinSize is that of the volumes that are compared with a raw file.
const twinSize = 64 * mib

// compare has qemu-io do the same to a volume and to a raw file; qemu-img must find
// them alike after each round, also through another node.
func (s *suite) compare(t *testing.T) {
	s.volume(t, "twin", "64M")
	raw := rawFile(t, twinSize)
	rng := rand.New(random(t))
	for round := range pick(3, 6) {
		e := s.nbd(t, "twin", fmt.Sprintf("node%d", round%3+1))
		if round > 0 { // what another node served is the same here
			tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", raw, e.URI)
		}
		script := commands(rng, pick(80, 1000), holes)
		qemuIO(t, raw, script)
		qemuIO(t, e.URI, script)
		tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", raw, e.URI)
		e.Stop()
	}
	e := s.nbd(t, "twin", "node1")
	flip(t, raw, twinSize-3)
	if out, err := try(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", raw, e.URI); err == nil {
		t.Errorf("qemu-img did not see a byte that differs: %s", out)
	}
}

// What qemu-io is told, the likelier the more often it is named. blkverify knows
// reads, writes and flushes only.
var (
	plain = []string{"write", "write", "write", "write", "write", "write -f", "read", "flush"}
	holes = append([]string{"write -z", "write -z -u", "discard", "discard"}, plain...)
)

// commands are random commands for qemu-io of some kinds. They begin and end at any
// 512 bytes, or where blocks, pages and stripes do.
func commands(rng *rand.Rand, n int, kinds []string) []string {
	grains := []int64{512, 4 * kib, 64 * kib, mib}
	var out []string
	for range n {
		kind := kinds[rng.IntN(len(kinds))]
		if kind == "flush" {
			out = append(out, kind)
			continue
		}
		grain := grains[rng.IntN(len(grains))]
		length := (1 + rng.Int64N(min(16, 3*mib/grain))) * grain
		off := rng.Int64N((twinSize-length)/grain+1) * grain
		if kind == "write" || kind == "write -f" {
			kind = fmt.Sprintf("%s -P %d", kind, 1+rng.IntN(255))
		}
		out = append(out, fmt.Sprintf("%s -q %d %d", kind, off, length))
	}
	return append(out, "flush")
}

// qemuIO runs commands, each after the one before.
func qemuIO(t *testing.T, image string, script []string) {
	t.Helper()
	out, err := tryQemuIO(t, image, script)
	if err != nil || strings.Contains(out, "failed") {
		t.Fatalf("qemu-io on %s: %v\n%s", image, err, devcluster.Tail(out, 30))
	}
}

func tryQemuIO(t *testing.T, image string, script []string) (string, error) {
	t.Helper()
	args := []string{"-f", "raw", "-d", "unmap"}
	if strings.HasPrefix(image, "json:") { // which names the driver
		args = args[2:]
	}
	for _, c := range script {
		args = append(args, "-c", c)
	}
	return try(t, "qemu-io", append(args, image)...)
}

// twin is QEMU's name for both of a file and an NBD export: what is read from the
// export must be what is read from the file.
func twin(t *testing.T, raw, socket string) string {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"driver": "blkverify", "node-name": "twin",
		"raw": map[string]any{
			"driver": "raw", "file": map[string]any{"driver": "file", "filename": raw},
		},
		"test": map[string]any{
			"driver": "nbd", "server": map[string]any{"type": "unix", "path": socket},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// blkverify has QEMU write to a volume and a raw file and compare all that it reads.
func (s *suite) blkverify(t *testing.T) {
	s.volume(t, "verified", "64M")
	e := s.nbd(t, "verified", "node2")
	raw := rawFile(t, twinSize)
	image := "json:" + twin(t, raw, e.Socket())
	rng := rand.New(random(t))
	for range pick(2, 4) {
		qemuIO(t, image, append(commands(rng, pick(80, 1000), plain), "read -q 0 32M", "read -q 32M 32M"))
	}
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", raw, e.URI)

	const at = 5*mib + 700
	flip(t, raw, at)
	out, err := tryQemuIO(t, image, []string{"read -q 5M 64k"})
	if err == nil || !strings.Contains(out, "contents mismatch") {
		t.Errorf("blkverify did not see a byte that differs: %v, %s", err, out)
	}
}

// blkverifyUnderLoad puts blkverify between fio and the volume, with many requests
// in flight.
func (s *suite) blkverifyUnderLoad(t *testing.T) {
	s.volume(t, "loaded", "64M")
	e := s.nbd(t, "loaded", "node3")
	raw := rawFile(t, twinSize)
	uri, stop := serveTwin(t, raw, e.Socket())
	// Two requests that overlap may be done in one order on the file and in the other
	// on the volume, and both are right; so fio sends none. It runs again instead of
	// --loops, which with reads among the writes it verifies wrongly on any server.
	for round := range pick[uint64](1, 4) {
		did := fio(t, uri, append([]string{
			"--size=" + pick("16m", "64m"), "--rw=randrw", "--iodepth=16", "--serialize_overlap=1",
			"--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0",
			"--randseed=" + strconv.FormatUint(*seed+round, 10),
		}, mixed...)...)
		if did.Read.Total == 0 || did.Write.Total == 0 {
			t.Errorf("fio did %+v", did)
		}
	}
	stop()
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", raw, e.URI)
}

// serveTwin serves both of a file and an export by NBD. blkverify ends its process
// when they differ; stop fails the test if it has.
func serveTwin(t *testing.T, raw, socket string) (uri string, stop func()) {
	t.Helper()
	at := filepath.Join(filepath.Dir(socket), "twin.sock")
	stop = storage(t, "--blockdev", twin(t, raw, socket),
		"--nbd-server", "addr.type=unix,addr.path="+at, "--export", "type=nbd,id=twin,node-name=twin,name=,writable=on")
	devcluster.Eventually(t, 20*time.Second, "qemu-storage-daemon serves", func() bool {
		_, err := os.Stat(at)
		return err == nil
	})
	return "nbd+unix:///?socket=" + at, stop
}

// storage runs qemu-storage-daemon until it is stopped or the test ends. stop fails
// the test if it did not end well.
func storage(t *testing.T, args ...string) (stop func()) {
	t.Helper()
	path, err := exec.LookPath("qemu-storage-daemon")
	if err != nil {
		t.Fatalf("qemu-storage-daemon is missing; make deps installs it: %v", err)
	}
	cmd := exec.Command(path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	running := true
	stop = func() {
		if !running {
			return
		}
		running = false
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("qemu-storage-daemon: %v\n%s", err, said.String())
			}
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			t.Errorf("qemu-storage-daemon did not end: %v", <-ended)
		}
	}
	t.Cleanup(stop)
	return stop
}
