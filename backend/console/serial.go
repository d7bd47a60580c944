package console

import (
	"context"
	"io"
	"net"
	"time"

	"drystone.example/drystone/backend/model"
)

const (
	serialPiece   = 4 << 10
	serialBacklog = 128 // pieces that wait for a Line; who has more is too slow, and ends

	// recentSerial is how much of what a guest wrote before is shown first.
	recentSerial = 8 << 10
)

// A port is the one connection to a serial port, for which QEMU has room for one.
// All of its audience read what it says.
type port struct {
	stop  context.CancelFunc
	ready chan struct{} // closed when conn or err is there
	conn  net.Conn
	err   error
}

func (p *port) close() { p.stop() }

// A seat is a member's way to a port.
type seat struct {
	conn   net.Conn
	writes bool
}

// joinPort waits for the audience's port, which the first member opens.
func (d *Desk) joinPort(ctx context.Context, g *audience, m *member) (guest, error) {
	d.mu.Lock()
	p := g.port
	if p == nil {
		long, stop := context.WithCancel(context.WithoutCancel(ctx)) // it ends with the last member
		p = &port{stop: stop, ready: make(chan struct{})}
		g.port = p
		d.ports.Go(func() { d.serve(long, g, p) })
	}
	d.mu.Unlock()
	select {
	case <-p.ready:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if p.err != nil {
		return nil, p.err
	}
	var err error
	if m.before, err = d.guests.SerialLog(g.place.vm, recentSerial); err != nil {
		d.log.Warn("serial log was not read", "vm", g.place.vm, "err", err)
	}
	return &seat{p.conn, m.writes}, nil
}

func tooSlow() error {
	return model.Errorf(model.Unavailable, "the connection is too slow for what the machine says")
}

// serve reads a port for its audience until ctx ends or the machine does.
func (d *Desk) serve(ctx context.Context, g *audience, p *port) {
	defer p.stop()
	short, cancel := context.WithTimeout(ctx, dialTime)
	p.conn, p.err = d.guests.DialSerial(short, g.place.vm)
	cancel()
	close(p.ready)
	if p.err != nil {
		d.dismiss(g, p.err)
		return
	}
	closing := context.AfterFunc(ctx, func() { _ = p.conn.Close() })
	defer closing()
	defer func() { _ = p.conn.Close() }()
	for {
		buf := make([]byte, serialPiece)
		n, err := p.conn.Read(buf)
		if n > 0 {
			d.broadcast(g, buf[:n])
		}
		if err != nil {
			d.dismiss(g, io.EOF)
			return
		}
	}
}

func (d *Desk) broadcast(g *audience, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range g.members {
		select {
		case m.data <- p:
		default:
			m.end(tooSlow())
		}
	}
}

// dismiss ends all of an audience; who comes next opens the port anew.
func (d *Desk) dismiss(g *audience, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all[g.place] == g {
		delete(d.all, g.place)
	}
	for _, m := range g.members {
		m.end(err)
	}
}

func (s *seat) write(p []byte) error {
	if !s.writes {
		return nil
	}
	if err := s.conn.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return io.EOF // the machine is gone
	}
	if _, err := s.conn.Write(p); err != nil {
		return model.Errorf(model.Unavailable, "the machine does not read its serial port")
	}
	return nil
}

func (s *seat) leave() {} // the last one closes the port
