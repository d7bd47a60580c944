package console

import (
	"bytes"
	"context"
	"errors"
	"image/png"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/model"
)

// guests are machines whose ends of consoles a test has.
type guests struct {
	ends chan net.Conn
	log  string
}

func (g *guests) DialSerial(context.Context, model.VMID) (net.Conn, error) {
	ours, end := net.Pipe()
	g.ends <- end
	return ours, nil
}

func (g *guests) DialDisplay(ctx context.Context, vm model.VMID) (net.Conn, error) {
	if vm == 8 {
		return nil, model.Errorf(model.Conflict, "the machine is not running")
	}
	return g.DialSerial(ctx, vm)
}

func (g *guests) SerialLog(model.VMID, int) ([]byte, error) { return []byte(g.log), nil }

// A rig is a desk in a bubble.
type rig struct {
	*testing.T

	*guests
	desk    *Desk
	serving sync.WaitGroup
}

func bubble(t *testing.T, f func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := &guests{ends: make(chan net.Conn, 16)}
		r := &rig{T: t, guests: g, desk: New(g, slog.New(slog.DiscardHandler))}
		f(t, r)
		r.serving.Wait()
		r.desk.Wait()
		if len(r.desk.all) != 0 || r.desk.open != 0 {
			t.Errorf("when all have left, there are %d audiences of %d", len(r.desk.all), r.desk.open)
		}
	})
}

func (r *rig) serve(f func(context.Context, net.Conn)) net.Conn {
	near, far := net.Pipe()
	r.serving.Go(func() {
		f(context.Background(), far)
		_ = far.Close()
	})
	return near
}

func (r *rig) try(vm model.VMID, kind Kind, mode Mode, by Bearer) (*Line, error) {
	r.Helper()
	k, err := r.desk.Issue(Ask{VM: vm, Kind: kind, Mode: mode, By: by})
	if err != nil {
		r.Fatal(err)
	}
	return Open(r.Context(), r.serve(r.desk.Serve), Hello{Ticket: k.Text, VM: vm, Kind: kind, By: by})
}

// open opens a console, and fails unless it writes as it is wanted to.
func (r *rig) open(kind Kind, mode Mode, by Bearer, writes bool) *Line {
	r.Helper()
	l, err := r.try(7, kind, mode, by)
	if err != nil || l.Writes() != writes {
		r.Fatalf("%s opens the %s to %s: %v, want one that writes: %v", by.Name, kind, mode, err, writes)
	}
	return l
}

// told is the newest notice, after all was said.
func (r *rig) told(l *Line) (n Notice) {
	r.Helper()
	synctest.Wait()
	got, p, err := l.Next()
	if err != nil || got == nil {
		r.Fatalf("Next = %q, %v; want a notice", p, err)
	}
	return *got
}

func (r *rig) ends(l *Line) error {
	r.Helper()
	for {
		if _, _, err := l.Next(); err != nil {
			return err
		}
	}
}

// reads reads so many bytes of the machine, past notices.
func (r *rig) reads(l *Line, n int) string {
	r.Helper()
	var out []byte
	for len(out) < n {
		_, p, err := l.Next()
		if err != nil {
			r.Fatalf("after %q: %v", out, err)
		}
		out = append(out, p...)
	}
	return string(out)
}

func heard(t *testing.T, end net.Conn, n int) string {
	t.Helper()
	p := make([]byte, n)
	if _, err := io.ReadFull(end, p); err != nil {
		t.Fatalf("the machine heard %q: %v", p, err)
	}
	return string(p)
}

// All see what one types, the second does not type, and all are told who is there.
func TestSerialIsShared(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) { //nolint:thelper // it is the test
		r.log = "booted\n"
		first := r.open(Serial, Use, kim, true)
		machine := <-r.guests.ends
		second := r.open(Serial, Use, lee, false)
		for _, l := range []*Line{first, second} {
			if got := r.reads(l, 7); got != "booted\n" {
				t.Errorf("it begins with %q", got)
			}
		}
		n := r.told(first)
		if !n.Writes || n.Writer != "kim" || len(n.Watchers) != 1 || n.Watchers[0] != "lee" {
			t.Errorf("who writes is told %+v", n)
		}
		if _, err := second.Write([]byte("rm -rf /\n")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := first.Write([]byte("ls\n")); err != nil {
			t.Fatal(err)
		}
		if got := heard(t, machine, 3); got != "ls\n" {
			t.Errorf("the machine heard %q", got)
		}
		if _, err := machine.Write([]byte("files")); err != nil {
			t.Fatal(err)
		}
		for _, l := range []*Line{first, second} {
			if got := r.reads(l, 5); got != "files" {
				t.Errorf("one sees %q", got)
			}
		}
		first.Close()
		if n := r.told(second); n.Writes || n.Writer != "" || len(n.Watchers) != 1 {
			t.Errorf("who stays is told %+v", n)
		}
		if _, err := machine.Write([]byte("bye")); err != nil {
			t.Fatal(err)
		}
		machine.Close()
		if got := r.reads(second, 3); got != "bye" {
			t.Errorf("the last is %q", got)
		}
		if err := r.ends(second); !errors.Is(err, io.EOF) {
			t.Errorf("when the machine has ended: %v", err)
		}
	})
}

// Who takes over writes from then on; the console of who wrote is ended, and nothing
// it sends reaches the machine, whose display it leaves, so that its keys are let go.
func TestTakeOver(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) { //nolint:thelper // it is the test
		first := r.open(Screen, Use, kim, true)
		one := <-r.guests.ends
		watching := r.open(Screen, Watch, lee, false)
		two := <-r.guests.ends
		taker := r.open(Screen, Take, lee, true)
		three := <-r.guests.ends
		if err := r.ends(first); model.CodeOf(err) != model.Conflict || !strings.Contains(err.Error(), "lee has taken over") {
			t.Errorf("who wrote before is told %v", err)
		}
		first.Close()
		if p, err := io.ReadAll(one); err != nil || len(p) != 0 {
			t.Errorf("the display left behind reads %q, %v", p, err)
		}
		sent := greeting + typing + looking
		go func() { _, _ = watching.Write([]byte(sent)) }()
		go func() { _, _ = taker.Write([]byte(sent)) }()
		if got := heard(t, two, len(greeting)+len(looking)); strings.Contains(got, typing) {
			t.Errorf("who watches typed %q", got)
		}
		if got := heard(t, three, len(sent)); !strings.Contains(got, typing) {
			t.Errorf("who took over typed %q", got)
		}
		watching.Close()
		taker.Close()
	})
}

// A session that comes again, because its connection broke off, writes on; another
// one of the same name does not, nor does root's, which has none.
func TestWriterComesAgain(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) { //nolint:thelper // it is the test
		first := r.open(Screen, Use, kim, true)
		other := kim
		other.Session = "s9"
		r.open(Screen, Use, other, false).Close()
		again := r.open(Screen, Use, kim, true)
		if err := r.ends(first); model.CodeOf(err) != model.Conflict {
			t.Errorf("the connection that broke off: %v", err)
		}
		first.Close()
		again.Close()
		synctest.Wait()
		root := r.open(Screen, Use, Bearer{Name: "root"}, true)
		r.open(Screen, Use, Bearer{Name: "root"}, false).Close()
		root.Close()
	})
}

// One who does not read is let go; the others, and the machine, do not wait for him.
func TestSlowReader(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) { //nolint:thelper // it is the test
		slow, quick := r.open(Serial, Use, kim, true), r.open(Serial, Watch, lee, false)
		machine := <-r.guests.ends
		var got int
		r.serving.Go(func() {
			for got < 4*serialBacklog {
				got += len(r.reads(quick, 1))
				synctest.Wait()
			}
			quick.Close()
		})
		for range 4 * serialBacklog {
			if _, err := machine.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(2 * writeTime)
		if err := r.ends(slow); model.CodeOf(err) != model.Unavailable {
			t.Errorf("who did not read: %v", err)
		}
		slow.Close()
	})
}

// A machine that takes nothing of what is typed is not waited for.
func TestStuckMachine(t *testing.T) {
	for _, kind := range []Kind{Screen, Serial} {
		bubble(t, func(t *testing.T, r *rig) { //nolint:thelper // it is the test
			line := r.open(kind, Use, kim, true)
			machine := <-r.guests.ends
			began := time.Now()
			if _, err := line.Write([]byte("RFB 003.008\n")); err != nil {
				t.Fatal(err)
			}
			if err := r.ends(line); model.CodeOf(err) != model.Unavailable {
				t.Errorf("%s of a machine that does not read: %v", kind, err)
			}
			if took := time.Since(began); took != writeTime {
				t.Errorf("%s was let go after %s", kind, took)
			}
			_ = machine.Close()
			line.Close()
		})
	}
}

// Consoles and machines are bounded: so many watch, and no more.
func TestBounds(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) { //nolint:thelper // it is the test
		var all []*Line
		for range maxMembers {
			all = append(all, r.open(Screen, Watch, kim, false))
			go func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }(<-r.guests.ends)
		}
		if _, err := r.try(7, Screen, Use, lee); model.CodeOf(err) != model.Unavailable {
			t.Errorf("one too many: %v", err)
		}
		for _, l := range all {
			l.Close()
		}
		synctest.Wait()
		if _, err := r.try(8, Screen, Use, lee); model.CodeOf(err) != model.Conflict {
			t.Errorf("a machine that does not run: %v", err)
		}
	})
}

// A hello that does not come, or is none, is not waited for long.
func TestSilence(t *testing.T) {
	bubble(t, func(_ *testing.T, r *rig) {
		r.serve(r.desk.Serve)
		garbage := r.serve(r.desk.Serve)
		go func() { _, _ = garbage.Write([]byte("GET / HTTP/1.1\r\n\r\n")) }()
		time.Sleep(helloTime + writeTime)
	})
}

// display plays QEMU: a picture of 3 times 2 pixels, at first of another size.
func display(t *testing.T, conn net.Conn) {
	t.Helper()
	say := func(s string) {
		if _, err := io.WriteString(conn, s); err != nil {
			t.Errorf("QEMU says %q: %v", s, err)
		}
	}
	hear := func(n int) string { return heard(t, conn, n) }
	say(rfbVersion)
	hear(len(rfbVersion))
	say("\x01\x01")
	hear(1)
	say("\x00\x00\x00\x00")
	hear(1)
	say("\x00\x02\x00\x02" + strings.Repeat("f", 16) + "\x00\x00\x00\x04QEMU")
	hear(20 + 12)
	if got := hear(10); got != "\x03\x00\x00\x00\x00\x00\x00\x02\x00\x02" {
		t.Errorf("QEMU is asked %q", got)
	}
	say("\x02\x03\x00\x00\x00\x00\x00\x00\x02xx") // the bell, and text
	say("\x00\x00\x00\x01\x00\x00\x00\x00\x00\x03\x00\x02\xff\xff\xff\x21")
	if got := hear(10); got != "\x03\x00\x00\x00\x00\x00\x00\x03\x00\x02" {
		t.Errorf("QEMU is asked %q after the size has changed", got)
	}
	say("\x00\x00\x00\x02" +
		"\x00\x00\x00\x00\x00\x03\x00\x01\x00\x00\x00\x00" + "RGB-RGB-RGB-" +
		"\x00\x00\x00\x01\x00\x03\x00\x01\x00\x00\x00\x00" + "rgb-rgb-rgb-")
	hear(10)
	_, _ = io.Copy(io.Discard, conn)
}

func TestPicture(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) { //nolint:thelper // it is the test
		r.serving.Go(func() { display(t, <-r.guests.ends) })
		p, err := Fetch(t.Context(), r.serve(r.desk.ServePicture), 7)
		if err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(bytes.NewReader(p))
		if err != nil {
			t.Fatal(err)
		}
		red, green, blue, alpha := img.At(2, 1).RGBA()
		if img.Bounds().Dx() != 3 || img.Bounds().Dy() != 2 || red>>8 != 'r' || green>>8 != 'g' || blue>>8 != 'b' || alpha>>8 != 255 {
			t.Errorf("the picture is %v, its last pixel %v", img.Bounds(), img.At(2, 1))
		}
		if _, err := Fetch(t.Context(), r.serve(r.desk.ServePicture), 8); model.CodeOf(err) != model.Conflict {
			t.Errorf("of a machine that does not run: %v", err)
		}
	})
}

// A display that lies, or says nothing, makes no picture and takes no memory.
func FuzzCapture(f *testing.F) {
	head := rfbVersion + "\x01\x01\x00\x00\x00\x00\x00\x02\x00\x02" + strings.Repeat("f", 16) + "\x00\x00\x00\x00"
	f.Add([]byte(head + "\x00\x00\x00\x01\x00\x00\x00\x00\x00\x02\x00\x02\x00\x00\x00\x00" + strings.Repeat("p", 16)))
	f.Add([]byte(head + "\x00\x00\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00"))
	f.Add([]byte(head + "\x00\x00\x00\x01\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\x21"))
	f.Fuzz(func(t *testing.T, said []byte) {
		img, err := capture(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(said), io.Discard})
		if err == nil && img.Bounds().Dx()*img.Bounds().Dy() > maxPixels {
			t.Errorf("a picture of %v", img.Bounds())
		}
	})
}
