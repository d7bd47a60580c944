package guard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/proc"
)

// The test binary is also the guard, when it is told to be: its tests are about
// processes that die.
func TestMain(m *testing.M) {
	if text := os.Getenv("GUARD_TEST"); text != "" {
		var c guardArgs
		err := json.Unmarshal([]byte(text), &c)
		if err == nil {
			err = Run(context.Background(), Config{
				Socket: c.Socket, PIDs: c.PIDs, Margin: c.Margin,
				Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
			})
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1) //nolint:forbidigo // this is the guard's main
		}
		return
	}
	m.Run()
}

type guardArgs struct {
	Socket, PIDs string
	Margin       time.Duration
}

const testMargin = 300 * time.Millisecond

// A fixture is a folder with guards and guests in it.
type fixture struct {
	t    *testing.T
	dir  string
	args guardArgs
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	dir, err := os.MkdirTemp("", "guard") //nolint:usetesting // a short path, for the socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &fixture{t: t, dir: dir, args: guardArgs{
		Socket: filepath.Join(dir, "guard.sock"), PIDs: filepath.Join(dir, "qemu"),
		Margin: testMargin,
	}}
}

// A process is a child that the test waits for.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	id   proc.ID
	out  *bytes.Buffer
	dead chan struct{} // closed once it is
	err  error         // of Wait, read after dead
}

func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, out: &bytes.Buffer{}, dead: make(chan struct{})}
	cmd.Stderr = p.out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var err error
	if p.id, err = proc.Of(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.dead)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.dead
	})
	return p
}

func (p *process) isDead() bool {
	select {
	case <-p.dead:
		return true
	default:
		return false
	}
}

// guard starts a guard process and waits until it answers.
func (f *fixture) guard() *process {
	f.t.Helper()
	text, err := json.Marshal(f.args)
	if err != nil {
		f.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "GUARD_TEST="+string(text))
	p := start(f.t, cmd)
	c := f.client()
	wait(f.t, "the guard to answer", func() bool {
		if p.isDead() {
			f.t.Fatalf("the guard ended: %v\n%s", p.err, p.out)
		}
		s, err := c.Status(f.t.Context())
		return err == nil && s.Process == p.id
	})
	return p
}

func (f *fixture) client() *Client {
	f.t.Helper()
	c := NewClient(f.args.Socket)
	f.t.Cleanup(func() { _ = c.Close() })
	return c
}

// guest starts a process that passes for the QEMU of a machine, pid file and all.
func (f *fixture) guest(vm model.VMID) *process {
	f.t.Helper()
	name := proc.GuestPrefix + vm.String()
	// bash, not sh: it keeps the arguments of its own command line in place.
	cmd := exec.Command("bash", "-c", "while :; do read -t 60 <> <(:); done", "qemu",
		"-name", "guest="+name+",debug-threads=on")
	p := start(f.t, cmd)
	if err := os.MkdirAll(f.args.PIDs, 0o700); err != nil {
		f.t.Fatal(err)
	}
	err := os.WriteFile(filepath.Join(f.args.PIDs, name+".pid"),
		[]byte(strconv.Itoa(p.id.PID)+"\n"), 0o600)
	if err != nil {
		f.t.Fatal(err)
	}
	return p
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// killedBetween checks that a guest died by SIGKILL, not before from and soon after.
func killedBetween(t *testing.T, p *process, from Boottime) {
	t.Helper()
	select {
	case <-p.dead:
	case <-time.After(10 * time.Second):
		t.Fatalf("the guest lives %v after its time", Now().Sub(from))
	}
	if early := from.Sub(Now()); early > 0 {
		t.Errorf("the guest died %v too early", early)
	}
	exit, ok := errors.AsType[*exec.ExitError](p.err)
	if !ok {
		t.Fatalf("the guest ended with %v, want killed", p.err)
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Errorf("the guest ended with %v, want killed", p.err)
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func vmID() model.VMID { return model.NewID[model.VMID]() }

// A guest lives while the deadline is renewed, and dies a margin after the last
// deadline, not earlier. Who was forgotten lives on.
func TestKillsAtTheDeadline(t *testing.T) {
	f := newFixture(t)
	g := f.guard()
	c := f.client()
	vm, free := vmID(), vmID()
	guest := f.guest(vm)
	f.args.PIDs = filepath.Join(f.dir, "elsewhere") // where no guard looks
	other := f.guest(free)
	ok(t, c.Renew(t.Context(), Now().Add(time.Minute)))
	ok(t, c.Register(t.Context(), proc.Guest{VM: vm, ID: guest.id}))
	ok(t, c.Register(t.Context(), proc.Guest{VM: free, ID: other.id}))
	ok(t, c.Forget(t.Context(), free))
	if err := c.Renew(t.Context(), Now().Add(time.Hour)); model.CodeOf(err) != model.Invalid {
		t.Errorf("Renew for an hour = %v, want invalid", err)
	}
	s, err := c.Status(t.Context())
	ok(t, err)
	want := []proc.Guest{{VM: vm, ID: guest.id}}
	if diff := cmp.Diff(want, s.Guests); diff != "" || s.Process != g.id {
		t.Errorf("Status = %+v (-want +got):\n%s", s, diff)
	}
	if guest.isDead() || other.isDead() {
		t.Fatal("a guest died before its time")
	}
}

// The deadline moves on with each renewal; once the renewals end, so does the guest.
func TestRenewalsEnd(t *testing.T) {
	f := newFixture(t)
	f.guard()
	c := f.client()
	vm := vmID()
	guest := f.guest(vm)
	ok(t, c.Renew(t.Context(), Now().Add(200*time.Millisecond)))
	ok(t, c.Register(t.Context(), proc.Guest{VM: vm, ID: guest.id}))
	var last Boottime
	for range 20 {
		last = Now().Add(100 * time.Millisecond)
		ok(t, c.Renew(t.Context(), last))
		ok(t, c.Renew(t.Context(), last.Add(-time.Second))) // changes nothing
		time.Sleep(50 * time.Millisecond)                   // a renewal's period
	}
	if guest.isDead() {
		t.Fatal("the guest died while its lease was renewed")
	}
	killedBetween(t, guest, last.Add(testMargin))
	wait(t, "the kill to be counted", func() bool {
		s, err := c.Status(t.Context())
		return err == nil && s.Killed == 1 && len(s.Guests) == 0
	})
}

// Two guests, one of which the daemon never registered: it was starting when the
// daemon died. Both die.
func TestFindsByPIDFile(t *testing.T) {
	f := newFixture(t)
	g := f.guard()
	c := f.client()
	vm := vmID()
	known := f.guest(vm)
	deadline := Now().Add(100 * time.Millisecond)
	ok(t, c.Renew(t.Context(), deadline))
	ok(t, c.Register(t.Context(), proc.Guest{VM: vm, ID: known.id}))
	unknown := f.guest(vmID())
	killedBetween(t, known, deadline.Add(testMargin))
	killedBetween(t, unknown, deadline.Add(testMargin))
	late := f.guest(vmID()) // libvirt was about to start it
	killedBetween(t, late, deadline.Add(testMargin))
	ok(t, g.cmd.Process.Signal(syscall.SIGKILL))
	<-g.dead
	if n := strings.Count(g.out.String(), "killed a guest"); n != 3 {
		t.Errorf("the guard's log tells of %d kills, want 3:\n%s", n, g.out)
	}
}

// A guard that is killed is replaced by one that knows the deadline and finds the
// guest; the daemon's client goes on with the new one.
func TestGuardDies(t *testing.T) {
	f := newFixture(t)
	first := f.guard()
	c := f.client()
	vm := vmID()
	guest := f.guest(vm)
	deadline := Now().Add(2 * time.Second)
	ok(t, c.Renew(t.Context(), deadline))
	ok(t, c.Register(t.Context(), proc.Guest{VM: vm, ID: guest.id}))
	wait(t, "the deadline to be written down", func() bool {
		b, _ := os.ReadFile(filepath.Join(f.dir, "guard.state"))
		return strings.Contains(string(b), strconv.FormatInt(int64(deadline), 10))
	})
	ok(t, first.cmd.Process.Kill())
	<-first.dead
	if err := c.Renew(t.Context(), deadline); model.CodeOf(err) != model.Unavailable {
		t.Errorf("Renew without a guard = %v, want unavailable", err)
	}
	second := f.guard()
	s, err := f.client().Status(t.Context())
	ok(t, err)
	want := Status{
		Process: second.id, Deadline: deadline, Guests: []proc.Guest{{VM: vm, ID: guest.id}},
	}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("the new guard's status differs (-want +got):\n%s", diff)
	}
	longer := deadline.Add(500 * time.Millisecond)
	ok(t, c.Renew(t.Context(), longer))
	killedBetween(t, guest, longer.Add(testMargin))
}

// A new guard takes over from one that runs, from one that is stopped and cannot
// answer, and two never guard at once.
func TestTakeOver(t *testing.T) {
	for _, stopped := range []bool{false, true} {
		t.Run(fmt.Sprintf("stopped=%v", stopped), func(t *testing.T) {
			f := newFixture(t)
			first := f.guard()
			c := f.client()
			vm := vmID()
			guest := f.guest(vm)
			f.args.PIDs = "" // the next one learns of the guest by word only
			ok(t, c.Renew(t.Context(), Now().Add(MaxLease-time.Second)))
			ok(t, c.Register(t.Context(), proc.Guest{VM: vm, ID: guest.id}))
			want, err := c.Status(t.Context())
			ok(t, err)
			if stopped {
				wait(t, "the deadline to be written down", func() bool {
					b, _ := os.ReadFile(filepath.Join(f.dir, "guard.state"))
					return len(b) > 0
				})
				ok(t, first.cmd.Process.Signal(syscall.SIGSTOP))
			}
			second := f.guard()
			select {
			case <-first.dead:
			case <-time.After(5 * time.Second):
				t.Fatal("the first guard did not end")
			}
			if !stopped && first.err != nil {
				t.Errorf("the first guard ended with %v, want nil\n%s", first.err, first.out)
			}
			// The client connects to the new one, and tells it what it had told.
			got, err := c.Status(t.Context())
			ok(t, err)
			want.Process = second.id
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("the new guard's status differs (-want +got):\n%s", diff)
			}
		})
	}
}

// A guest with no deadline at all has the margin to live. A guard without guests
// does nothing.
func TestNoDeadline(t *testing.T) {
	f := newFixture(t)
	g := f.guard()
	c := f.client()
	s, err := c.Status(t.Context())
	ok(t, err)
	if s.Deadline != 0 || len(s.Guests) != 0 {
		t.Errorf("Status of a new guard = %+v, want nothing", s)
	}
	began := Now()
	vm := vmID()
	guest := f.guest(vm)
	ok(t, c.Register(t.Context(), proc.Guest{VM: vm, ID: guest.id}))
	killedBetween(t, guest, began.Add(testMargin))
	ok(t, g.cmd.Process.Kill())
}

// Dead guests and reused numbers are never mistaken for guests.
func TestNotAGuest(t *testing.T) {
	f := newFixture(t)
	f.guard()
	c := f.client()
	ok(t, c.Renew(t.Context(), Now().Add(10*time.Second)))
	guest := f.guest(vmID())
	stale := guest.id
	stale.Start--
	ok(t, c.Register(t.Context(), proc.Guest{VM: vmID(), ID: stale}))
	s, err := c.Status(t.Context())
	ok(t, err)
	if len(s.Guests) != 0 {
		t.Errorf("Guests = %v, want none: the process is another one", s.Guests)
	}
	for _, bad := range []proc.Guest{{}, {VM: 1, ID: proc.ID{PID: 1, Start: 1}}} {
		if err := c.Register(t.Context(), bad); model.CodeOf(err) != model.Invalid {
			t.Errorf("Register(%+v) = %v, want invalid", bad, err)
		}
	}
}

// Spawn starts a guard that outlives its caller's interest, once.
func TestSpawn(t *testing.T) {
	f := newFixture(t)
	text, err := json.Marshal(f.args)
	ok(t, err)
	t.Setenv("GUARD_TEST", string(text))
	log := filepath.Join(f.dir, "log")
	ok(t, Spawn(t.Context(), f.args.Socket, log, os.Args[0]))
	c := f.client()
	first, err := c.Status(t.Context())
	ok(t, err)
	t.Cleanup(func() {
		h, err := proc.Open(first.Process)
		ok(t, err)
		defer h.Close()
		ok(t, h.Kill())
	})
	ok(t, Spawn(t.Context(), f.args.Socket, log, os.Args[0]))
	second, err := c.Status(t.Context())
	if err != nil || second.Process != first.Process {
		t.Errorf("after the second Spawn the guard is %v, %v; want %v", second, err, first)
	}
	err = Spawn(t.Context(), filepath.Join(f.dir, "none.sock"), log, filepath.Join(f.dir, "none"))
	if err == nil {
		t.Error("Spawn of a program that is not there succeeded")
	}
}

// Whatever a file holds, only a whole line of this boot has a deadline.
func TestMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	m, deadline, err := openMemory(path)
	if err != nil || deadline != 0 {
		t.Fatalf("openMemory of nothing = %d, %v", deadline, err)
	}
	for d := range Boottime(1000) { // some are overtaken, the last is not
		m.remember(d + 1)
	}
	ok(t, m.close())
	good, err := os.ReadFile(path)
	ok(t, err)
	if m, deadline, err = openMemory(path); err != nil || deadline != 1000 {
		t.Errorf("openMemory = %d, %v; want 1000", deadline, err)
	}
	ok(t, m.close())
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		ok(t, os.WriteFile(path, bad, 0o600))
		m, deadline, err := openMemory(path)
		if err != nil || deadline != 0 {
			t.Errorf("openMemory with byte %d flipped = %d, %v; want none", i, deadline, err)
		}
		ok(t, m.close())
	}
}
