package console

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"drystone.example/drystone/backend/model"
)

// The bounds of a Desk.
const (
	maxMembers = 16  // of one console of a machine
	maxOpen    = 128 // of a node

	helloTime = 5 * time.Second
	dialTime  = 10 * time.Second
	writeTime = 10 * time.Second // for a Line to take a frame, and a machine to take what was typed
)

// A Hypervisor has the machines.
type Hypervisor interface {
	DialSerial(ctx context.Context, vm model.VMID) (net.Conn, error)
	DialDisplay(ctx context.Context, vm model.VMID) (net.Conn, error)
	SerialLog(vm model.VMID, limit int) ([]byte, error)
}

// A Desk is where the consoles of a node's machines are. Its methods are safe for
// concurrent use.
type Desk struct {
	guests   Hypervisor
	log      *slog.Logger
	tickets  tickets
	pictures chan struct{} // has a value for each screenshot being taken
	ports    sync.WaitGroup

	mu   sync.Mutex // guards what follows, and the audiences; nothing blocks under it
	all  map[place]*audience
	open int
}

type place struct {
	vm   model.VMID
	kind Kind
}

// New makes a Desk.
func New(guests Hypervisor, log *slog.Logger) *Desk {
	return &Desk{guests: guests, log: log, pictures: make(chan struct{}, 2), all: map[place]*audience{}}
}

// Issue makes a ticket.
func (d *Desk) Issue(a Ask) (Ticket, error) {
	if err := a.validate(); err != nil {
		return Ticket{}, err
	}
	return d.tickets.issue(a)
}

// Wait returns when nothing of a Desk runs any more, which is soon after its last
// Serve has returned.
func (d *Desk) Wait() { d.ports.Wait() }

// An audience is all who look at one console of a machine.
type audience struct {
	desk    *Desk
	place   place
	members []*member // in the order in which they came
	port    *port     // of a serial console
}

// A member is one of an audience: one Line's other end.
type member struct {
	by     Bearer
	writes bool
	before []byte          // what the machine said before
	data   chan []byte     // for the Line; of a screen without a buffer, so that QEMU waits
	notice chan Notice     // the newest
	ctx    context.Context //nolint:containedctx // it ends with the member
	end    context.CancelCauseFunc
}

// A Notice says who is there. The first one says that the console is open.
type Notice struct {
	Writes   bool     `json:"writes"` // whether who is told may write
	Writer   string   `json:"writer"` // who does; empty: nobody
	Watchers []string `json:"watchers"`
}

// enter makes a member. Of those before, only a writer who is taken over from ends:
// because it was asked for, or because it is a lost connection of the same session.
func (d *Desk) enter(ctx context.Context, a Ask) (*audience, *member, error) {
	m := &member{by: a.By, notice: make(chan Notice, 1)}
	m.ctx, m.end = context.WithCancelCause(ctx)
	if a.Kind == Serial {
		m.data = make(chan []byte, serialBacklog)
	} else {
		m.data = make(chan []byte)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	at := place{a.VM, a.Kind}
	g := d.all[at]
	if d.open >= maxOpen || g != nil && len(g.members) >= maxMembers {
		m.end(nil)
		return nil, nil, model.Errorf(model.Unavailable, "too many people look at it already")
	}
	if g == nil {
		g = &audience{desk: d, place: at}
		d.all[at] = g
	}
	writer := g.writer()
	again := writer != nil && a.By.Session != "" && writer.by.Session == a.By.Session
	m.writes = a.Mode == Take || a.Mode == Use && (writer == nil || again)
	if m.writes && writer != nil {
		writer.end(model.Errorf(model.Conflict, "%s has taken over", a.By.Name))
	}
	g.members = append(g.members, m)
	d.open++
	g.tell()
	return g, m, nil
}

// leave is the end of a member; the last one of a serial console lets the port go.
func (g *audience) leave(m *member) {
	m.end(nil)
	d := g.desk
	d.mu.Lock()
	defer d.mu.Unlock()
	g.members = slices.DeleteFunc(g.members, func(o *member) bool { return o == m })
	d.open--
	if len(g.members) > 0 {
		g.tell()
		return
	}
	if d.all[g.place] == g {
		delete(d.all, g.place)
	}
	if g.port != nil {
		g.port.close()
	}
}

func (g *audience) writer() *member {
	i := slices.IndexFunc(g.members, func(m *member) bool { return m.writes && m.ctx.Err() == nil })
	if i < 0 {
		return nil
	}
	return g.members[i]
}

// tell gives all the newest notice in the place of one they have not taken.
func (g *audience) tell() {
	n := Notice{Watchers: []string{}}
	for _, m := range g.members {
		switch {
		case m.ctx.Err() != nil: // about to leave
		case m.writes:
			n.Writer = m.by.Name
		default:
			n.Watchers = append(n.Watchers, m.by.Name)
		}
	}
	for _, m := range g.members {
		select {
		case <-m.notice:
		default:
		}
		n.Writes = m.writes
		m.notice <- n
	}
}

// Serve is the Desk's end of a Line, until either ends, the machine does, or ctx.
func (d *Desk) Serve(ctx context.Context, conn net.Conn) {
	in := bufio.NewReaderSize(conn, headSize+maxFrame)
	ask, err := d.admit(conn, in)
	if err != nil {
		d.refuse(conn, err)
		return
	}
	g, m, err := d.enter(ctx, ask)
	if err != nil {
		d.refuse(conn, err)
		return
	}
	defer g.leave(m)
	to, from, err := d.join(m.ctx, g, m) //nolint:contextcheck // the member ends sooner than ctx
	if err != nil {
		d.refuse(conn, err)
		return
	}
	var readers sync.WaitGroup
	readers.Go(func() { m.end(m.fromLine(in, to)) })
	if from != nil {
		readers.Go(func() { m.end(m.fromScreen(from)) })
	}
	d.refuse(conn, m.toLine(conn))
	_ = conn.Close() // and with it ends who reads
	to.leave()
	readers.Wait()
}

// admit reads the first frame.
func (d *Desk) admit(conn net.Conn, in io.Reader) (Ask, error) {
	if err := conn.SetReadDeadline(time.Now().Add(helloTime)); err != nil {
		return Ask{}, err //nolint:wrapcheck // the connection is gone
	}
	h, err := readHello(in)
	if err != nil {
		return Ask{}, err
	}
	ask, err := d.tickets.redeem(h)
	if err != nil {
		return Ask{}, err
	}
	return ask, conn.SetReadDeadline(time.Time{})
}

// refuse says the last word, to whoever still hears it.
func (d *Desk) refuse(conn net.Conn, err error) {
	e := endingOf(err)
	if e.Code == model.Internal {
		d.log.Debug("console ended", "err", err)
	}
	if conn.SetWriteDeadline(time.Now().Add(writeTime)) == nil {
		_ = writeJSON(conn, frameEnd, e)
	}
}

// A guest is a member's way to its machine.
type guest interface {
	write(p []byte) error // in one goroutine
	leave()
}

// join connects a member with its machine. What the machine says is read from there,
// unless it comes to all of the audience.
func (d *Desk) join(ctx context.Context, g *audience, m *member) (to guest, from io.Reader, err error) {
	if g.place.kind == Serial {
		to, err = d.joinPort(ctx, g, m)
		return to, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	conn, err := d.guests.DialDisplay(ctx, g.place.vm)
	if err != nil {
		return nil, nil, err //nolint:wrapcheck // it has its code
	}
	return &screen{conn: conn, filter: filter{writes: m.writes}}, conn, nil
}

// fromLine hands on what is typed, until the Line ends.
func (m *member) fromLine(in io.Reader, to guest) error {
	buf := make([]byte, maxFrame)
	for {
		kind, p, err := readFrame(in, buf)
		if err != nil {
			return io.EOF // who would hear of another reason is gone
		}
		if m.ctx.Err() != nil {
			return context.Cause(m.ctx)
		}
		if kind != frameData {
			return model.Errorf(model.Invalid, "a console was sent a frame of the unknown kind %q", kind)
		}
		if err := to.write(p); err != nil {
			return err
		}
	}
}

// fromScreen hands on what QEMU says, as fast as the Line takes it.
func (m *member) fromScreen(from io.Reader) error {
	for {
		buf := make([]byte, maxFrame)
		n, err := from.Read(buf)
		if n > 0 {
			select {
			case m.data <- buf[:n]:
			case <-m.ctx.Done():
				return nil
			}
		}
		if err != nil {
			return io.EOF // the machine is gone, or not here any more
		}
	}
}

// toLine sends what comes until the member ends, and returns why. The first is a
// notice.
func (m *member) toLine(conn net.Conn) error {
	send := func(f func() error) error {
		if err := conn.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
			return err //nolint:wrapcheck // the connection is gone
		}
		return f()
	}
	notice := func(n Notice) error { return send(func() error { return writeJSON(conn, frameNotice, n) }) }
	data := func(p []byte) error { return send(func() error { return writeFrame(conn, frameData, p) }) }
	err := notice(<-m.notice) // there has been one since enter
	if err == nil && len(m.before) > 0 {
		err = data(m.before)
	}
	for err == nil {
		select {
		case n := <-m.notice:
			err = notice(n)
		case p := <-m.data:
			err = data(p)
		case <-m.ctx.Done():
			return m.lastWords(data)
		}
	}
	return err
}

// lastWords sends what a machine said before it ended.
func (m *member) lastWords(data func([]byte) error) error {
	why := context.Cause(m.ctx)
	for why == io.EOF { //nolint:errorlint // ours, as it is
		select {
		case p := <-m.data:
			if err := data(p); err != nil {
				return err
			}
		default:
			return why
		}
	}
	return why
}

// A screen is one connection to QEMU's display.
type screen struct {
	conn   net.Conn
	filter filter
}

func (s *screen) write(p []byte) error {
	out, err := s.filter.feed(p)
	if err != nil {
		return err
	}
	if len(out) == 0 {
		return nil
	}
	if err := s.conn.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return io.EOF // the machine is gone
	}
	if _, err := s.conn.Write(out); errors.Is(err, os.ErrDeadlineExceeded) {
		return model.Errorf(model.Unavailable, "the machine does not take what is typed")
	} else if err != nil {
		return io.EOF // the machine is gone
	}
	return nil
}

func (s *screen) leave() { _ = s.conn.Close() }
