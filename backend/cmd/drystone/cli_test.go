package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"drystone.example/drystone/backend/api/apitest"
	"drystone.example/drystone/backend/model"
)

// A cli is the command line with the development cluster of a rig.
type cli struct {
	rig *apitest.Rig
	dir string
}

// newCLI makes DIR/cluster.json for a rig, as drystone dev does; its first node
// never answers.
func newCLI(t *testing.T) *cli {
	t.Helper()
	t.Setenv("DRYSTONE_DIR", "")
	rig := apitest.New(t)
	dir := t.TempDir()
	n1 := filepath.Join(dir, "n1")
	if err := os.MkdirAll(filepath.Join(n1, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(rig.Socket, filepath.Join(n1, "run", "api.sock")); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]any{
		"version": 1, "cluster_id": "x", "nodes": []map[string]string{
			{"name": "n0", "id": "x", "dir": filepath.Join(dir, "n0")},
			{"name": "n1", "id": apitest.Self.String(), "dir": n1},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cluster.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return &cli{rig: rig, dir: dir}
}

// A result is what a call came to.
type result struct {
	code     int
	out, err string
}

// call runs the program without the process.
func call(ctx context.Context, in string, args ...string) result {
	var out, errOut bytes.Buffer
	code := run(ctx, args, strings.NewReader(in), &out, &errOut)
	return result{code, out.String(), errOut.String()}
}

func (c *cli) run(t *testing.T, args ...string) result {
	t.Helper()
	return call(t.Context(), "", append([]string{"--dir", c.dir}, args...)...)
}

// ok runs what must succeed and returns what it printed.
func (c *cli) ok(t *testing.T, args ...string) string {
	t.Helper()
	r := c.run(t, args...)
	if r.code != exitDone || r.err != "" {
		t.Fatalf("drystone %s: exit %d, %s", strings.Join(args, " "), r.code, r.err)
	}
	return r.out
}

// is runs what must fail with a status and with some words.
func (c *cli) is(t *testing.T, code int, words string, args ...string) {
	t.Helper()
	r := c.run(t, args...)
	if r.code != code || !strings.Contains(r.err, words) || r.out != "" || strings.Count(r.err, "\n") != 1 {
		t.Errorf("drystone %s: exit %d, printed %q, said %q; want exit %d and one line with %q",
			strings.Join(args, " "), r.code, r.out, r.err, code, words)
	}
}

// has fails unless a text has all the words.
func has(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q is missing in:\n%s", w, text)
		}
	}
}

func TestStorageCommands(t *testing.T) {
	c := newCLI(t)
	has(t, c.ok(t, "volume", "list"), "There are no volumes.")
	has(t, c.ok(t, "volume", "create", "data", "10G"), "volume data of 10 GiB with 2 copies is made")
	has(t, c.ok(t, "volume", "list"), "NAME", "data", "10 GiB", "healthy")
	has(t, c.ok(t, "volume", "show", "data"), "Name:", "COLUMN", "on n1 active", "2 with 2 copies each")
	has(t, c.ok(t, "volume", "resize", "data", "12G"), "volume data has 12 GiB")
	c.is(t, exitFailed, "there is already a volume", "volume", "create", "data", "1G")
	c.is(t, exitFailed, "too small", "volume", "create", "tiny", "512")
	c.is(t, exitFailed, "2 or 3 copies", "volume", "create", "many", "1G", "--copies", "4")
	c.is(t, exitFailed, "there is no volume", "volume", "show", "none")
	c.is(t, exitUsage, "is not a size", "volume", "create", "x", "10X")
	c.is(t, exitUsage, "accepts 2 arg", "volume", "create", "x")
	c.is(t, exitUsage, "unknown flag", "volume", "list", "--nonsense")
	c.is(t, exitUsage, "unknown command", "volume", "explode")
	c.is(t, exitUsage, "needs to be told", "volume")
	c.is(t, exitUsage, "one of --nbd and --vhost", "volume", "export", "data")
	has(t, c.ok(t, "volume", "delete", "data"), "volume data is deleted")
	has(t, c.ok(t, "pool", "show"), "16 GiB", "2 of 2 online")
	has(t, c.ok(t, "disk", "list"), "CHECKSUM-ERRORS", "HEALTH", "failing", "n2", "/d/2")
	has(t, c.ok(t, "disk", "show", model.DiskID(11).String()), "/d/1", "EXAMPLE HDD-4000", "E4K00017", "failing", "20 MiB of 32 MiB, 99.0% of 100 looks were hits")
	has(t, c.ok(t, "disk", "show", model.DiskID(12).String()), "/d/2", "unknown")
	has(t, c.ok(t, "disk", "add", "/d/3", "--size", "1G", "--sparse", "--node", "n2"), "is part of the pool")
}

func TestMachineCommands(t *testing.T) {
	c := newCLI(t)
	dir := t.TempDir()
	kernel, image, broken := filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "debian.qcow2"), filepath.Join(dir, "broken.raw")
	for path, text := range map[string]string{kernel: "kernel", image: "image of a disk", broken: "nothing"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	has(t, c.ok(t, "image", "import", image), "image debian of 1 GiB is imported")
	has(t, c.ok(t, "image", "list"), "debian", "image")
	c.is(t, exitFailed, "is not a raw image", "image", "import", broken)
	c.is(t, exitUsage, "an image is qcow2", "image", "upload", kernel, "--format", "iso")
	c.is(t, exitFailed, "not "+strings.Repeat("0", 64), "image", "upload", image, "--name", "other", "--sha256", strings.Repeat("0", 64))
	has(t, c.ok(t, "image", "uploads"), "Nothing is being sent")
	c.is(t, exitFailed, "no such file", "image", "import", filepath.Join(dir, "none.raw"))

	has(t, c.ok(t, "vm", "create", "web", "--cpus", "2", "--memory", "1G", "--disk", "2G", "--disk", "debian",
		"--kernel", kernel, "--append", "quiet"), "machine web is made")
	has(t, c.ok(t, "vm", "show", "web"), "disk1", "disk2", "vmlinuz", "1 GiB")
	has(t, c.ok(t, "vm", "start", "web", "--node", "n1"), "shall be on")
	has(t, c.ok(t, "vm", "list"), "web", "n1")
	has(t, c.ok(t, "vm", "edit", "web", "--iops", "500", "--mbps", "100", "--burst-seconds", "30"),
		"Disks do at most:", "500 requests/s, 100 MiB/s, bursts of 30 s")
	c.is(t, exitUsage, "MiB a second", "vm", "edit", "web", "--mbps", "-1")
	has(t, c.ok(t, "vm", "history", "web", "--last", "30d"), "n2", "READ TAKES")
	has(t, c.ok(t, "vm", "history", "web", "--last", "2y", "--json"), `"step_seconds": 86400`)
	c.is(t, exitUsage, "is not an age", "vm", "history", "web", "--last", "3y")
	c.is(t, exitUsage, "is not an age", "vm", "history", "web", "--last", "soon")
	has(t, c.ok(t, "vm", "shutdown", "web"), "shall be off")
	c.is(t, exitFailed, "there is no", "vm", "create", "x", "--disk", "no-such-image")
	c.is(t, exitFailed, "needs a disk or a kernel", "vm", "create", "x")
	c.is(t, exitUsage, "go with --kernel", "vm", "create", "x", "--append", "quiet")
	c.is(t, exitUsage, "only --serial", "vm", "console", "web")
}

func TestClusterCommands(t *testing.T) {
	c := newCLI(t)
	has(t, c.ok(t, "status"), "demo", "2 of 2 up", "Leader:      n1", "leader", "16 GiB",
		"20 GiB of 30 GiB promised", "without n2, machines would find no room on the others: 1, with 4 GiB")
	has(t, c.ok(t, "node", "list"), "NAME", "n2")
	has(t, c.ok(t, "node", "show", "n1"), "Processors:", "8 GiB")
	token := strings.TrimSpace(c.ok(t, "token", "create", "--ttl", "10m"))
	if !strings.HasPrefix(token, "dry1-") || strings.ContainsAny(token, " \n") {
		t.Errorf("token create printed %q, want the token alone", token)
	}
	has(t, c.ok(t, "token", "list"), "abcdefgh")
	has(t, c.ok(t, "token", "delete", "abcdefgh"), "is deleted")
	has(t, c.ok(t, "version"), "drystone "+model.Version)
	has(t, c.ok(t, "completion", "bash"), "drystone")
	c.is(t, exitFailed, "there is no node", "node", "remove", "nowhere")
	c.is(t, exitUsage, "unknown command", "frobnicate")
}

// What cannot be asked is told apart from what refuses.
func TestExitStatus(t *testing.T) {
	c := newCLI(t)
	c.rig.Record.SetAway(model.Errorf(model.Unavailable, "there is no leader"))
	c.is(t, exitUnavailable, "there is no leader", "volume", "list")
	r := c.run(t, "status")
	if r.code != exitUnavailable || !strings.Contains(r.out, "demo") || !strings.Contains(r.err, "no leader") {
		t.Errorf("status without a leader: %+v", r)
	}
	empty := t.TempDir()
	for _, c := range []struct {
		code  int
		words string
		args  []string
	}{
		{exitFailed, "drystone dev up", []string{"--dir", empty, "status"}},
		{exitUnavailable, "cannot be reached", []string{"--server", "127.0.0.1:1", "--ca", c.caFile(t), "--token-file", c.caFile(t), "status"}},
		{exitUsage, "go with --server", []string{"--ca", "x", "status"}},
		{exitUsage, "needs --ca", []string{"--server", "x", "status"}},
		{exitUsage, "unknown flag", []string{"--password", "x", "login"}},
	} {
		r := call(t.Context(), "", c.args...)
		if r.code != c.code || !strings.Contains(r.err, c.words) {
			t.Errorf("drystone %v: exit %d, %q, want exit %d and %q", c.args, r.code, r.err, c.code, c.words)
		}
	}
}

func (c *cli) caFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, c.rig.CA(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// From afar: the password comes from standard input, the token goes to a file that
// only its owner can read, and neither is ever printed.
func TestLogin(t *testing.T) {
	c := newCLI(t)
	file := filepath.Join(t.TempDir(), "token")
	afar := []string{"--server", c.rig.Address(), "--ca", c.caFile(t), "--token-file", file}
	r := call(t.Context(), "", append(afar, "status")...)
	if r.code != exitFailed || !strings.Contains(r.err, "drystone login") {
		t.Errorf("before the log-in: %+v", r)
	}
	r = call(t.Context(), "wrong password\n", append(afar, "login", "--user", "viewer")...)
	if r.code != exitFailed || !strings.Contains(r.err, "wrong") {
		t.Errorf("with a wrong password: %+v", r)
	}
	r = call(t.Context(), apitest.Password+"\n", append(afar, "login", "--user", "viewer")...)
	if r.code != exitDone || !strings.Contains(r.out, "logged in as viewer") {
		t.Fatalf("login: %+v", r)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the token's file: %v, %v", info, err)
	}
	token, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if secret := strings.TrimSpace(string(token)); strings.Contains(r.out+r.err, secret) || strings.Contains(c.rig.Log.String(), secret) {
		t.Error("the token was printed or logged")
	}
	if r := call(t.Context(), "", append(afar, "status")...); r.code != exitDone || !strings.Contains(r.out, "demo") {
		t.Errorf("status from afar: %+v", r)
	}
	if r := call(t.Context(), "", append(afar, "volume", "create", "x", "1G")...); r.code != exitFailed || !strings.Contains(r.err, "admin") {
		t.Errorf("a viewer makes a volume: %+v", r)
	}
}

// An export says where it is, lasts until it is interrupted, and then ends well.
func TestExport(t *testing.T) {
	c := newCLI(t)
	c.ok(t, "volume", "create", "data", "1G")
	ctx, interrupt := context.WithCancel(t.Context())
	var out, errOut lockedBuffer
	var done sync.WaitGroup
	var code int
	done.Go(func() {
		code = run(ctx, []string{"--dir", c.dir, "volume", "export", "data", "--node", "n1", "--nbd", "/run/x.sock"}, strings.NewReader(""), &out, &errOut)
	})
	apitest.WaitFor(t, "the export", func() bool { return strings.Contains(out.String(), "\n") })
	if got, want := out.String(), "ready nbd+unix:///?socket=/run/x.sock\n"; got != want {
		t.Errorf("export printed %q, want %q", got, want)
	}
	interrupt()
	done.Wait()
	if code != exitDone || errOut.String() != "" {
		t.Errorf("export ended with %d, %q", code, errOut.String())
	}
	apitest.WaitFor(t, "the node to end the export", func() (ended bool) {
		c.rig.Service.Set(func(s *apitest.Service) { ended = s.Exports == 0 })
		return ended
	})
	c.rig.Service.Set(func(s *apitest.Service) { close(s.Broken) })
	r := c.run(t, "volume", "export", "data", "--vhost", "/run/y.sock")
	if r.code != exitFailed || !strings.Contains(r.err, "another node took the volume") {
		t.Errorf("an export that broke: %+v", r)
	}
	c.is(t, exitFailed, `no node "n7"`, "volume", "export", "data", "--node", "n7", "--nbd", "/run/x.sock")
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// What is typed reaches the guest, what it writes is printed, and Ctrl-] leaves.
func TestConsole(t *testing.T) {
	c := newCLI(t)
	c.ok(t, "vm", "create", "web", "--disk", "1G")
	var guest sync.WaitGroup
	guest.Go(func() {
		port := c.rig.Service.Guest()
		defer letGo(port)
		buf := make([]byte, 5)
		if _, err := io.ReadFull(port, buf); err != nil {
			t.Errorf("the guest read %q, %v", buf, err)
			return
		}
		if _, err := fmt.Fprintf(port, "you said %s", buf); err != nil {
			t.Errorf("the guest writes: %v", err)
		}
	})
	r := call(t.Context(), "hello", "--dir", c.dir, "vm", "console", "web", "--serial")
	if r.code != exitDone || r.out != "you said hello" {
		t.Errorf("console: %+v", r)
	}
	guest.Wait()
	guest.Go(func() {
		said, err := io.ReadAll(c.rig.Service.Guest())
		if err != nil || string(said) != "bye" {
			t.Errorf("the guest read %q, %v, want what was typed before the escape", said, err)
		}
	})
	r = call(t.Context(), "bye\x1dnot sent", "--dir", c.dir, "vm", "console", "web", "--serial")
	if r.code != exitDone {
		t.Errorf("console with an escape: %+v", r)
	}
	guest.Wait()
}

func TestParseSize(t *testing.T) {
	for _, c := range []struct {
		text string
		want model.Bytes
		ok   bool
	}{
		{"512", 512, true},
		{"10G", 10 << 30, true},
		{"10g", 10 << 30, true},
		{"10GiB", 10 << 30, true},
		{"10GB", 10 << 30, true},
		{"512M", 512 << 20, true},
		{"1.5T", 3 << 39, true},
		{"4k", 4096, true},
		{"0", 0, true},
		{"", 0, false},
		{"G", 0, false},
		{"-1G", 0, false},
		{"10X", 0, false},
		{"1e3", 0, false},
		{"9999999999T", 0, false},
		{"NaNG", 0, false},
		{"debian", 0, false},
		{"1.5", 0, false},
	} {
		got, err := parseSize(c.text)
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("parseSize(%q) = %d, %v, want %d, ok %v", c.text, got, err, c.want, c.ok)
		}
	}
}

func TestSize(t *testing.T) {
	for b, want := range map[model.Bytes]string{
		0: "0 B", 1023: "1023 B", 1 << 10: "1 KiB", 1536: "1.5 KiB", 10 << 30: "10 GiB", 3 << 39: "1.5 TiB",
	} {
		if got := size(b); got != want {
			t.Errorf("size(%d) = %q, want %q", b, got, want)
		}
	}
}
