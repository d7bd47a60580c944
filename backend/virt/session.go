package virt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/digitalocean/go-libvirt"

	"drystone.example/drystone/backend/model"
)

// A session is one connection to libvirtd. Calls of go-libvirt cannot be given up,
// but they all end when the connection is closed; so a call that takes too long costs its
// session, and calls that must not wait for each other use sessions of their own.
type session struct {
	l    *libvirt.Libvirt
	conn *watchedConn
}

// watchedConn says when its reader found the connection lost.
type watchedConn struct {
	net.Conn
	once sync.Once
	lost chan struct{}
}

func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.once.Do(func() { close(c.lost) })
	}
	return n, err
}

// Dial makes watchedConn the dialer of a connection that is there already.
func (c *watchedConn) Dial() (net.Conn, error) { return c, nil }

// socketOf finds the socket in a URI of libvirt.
func socketOf(uri string) (string, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return "", model.Errorf(model.Invalid, "libvirt's URI %q: %w", uri, err)
	}
	socket := u.Query().Get("socket")
	if u.Scheme != "qemu+unix" || u.Path != "/system" || u.Host != "" || socket == "" {
		return "", model.Errorf(model.Invalid,
			"libvirt's URI is qemu+unix:///system?socket=PATH, not %q", uri)
	}
	return socket, nil
}

// connect makes a session.
func connect(ctx context.Context, socket string) (*session, error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, model.Errorf(model.Unavailable, "libvirt does not answer: %w", err)
	}
	s := &session{conn: &watchedConn{Conn: raw, lost: make(chan struct{})}}
	s.l = libvirt.NewWithDialer(s.conn)
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	err = s.l.ConnectToURI(libvirt.QEMUSystem)
	if !stop() {
		return nil, model.Errorf(model.Unavailable, "libvirt does not answer: %w", ctx.Err())
	}
	if err != nil {
		_ = raw.Close()
		return nil, model.Errorf(model.Unavailable, "libvirt does not answer: %w", err)
	}
	return s, nil
}

// call runs f, and closes the session if ctx ends before f does.
func (s *session) call(ctx context.Context, f func(*libvirt.Libvirt) error) error {
	stop := context.AfterFunc(ctx, func() { _ = s.conn.Close() })
	err := f(s.l)
	if !stop() && err != nil {
		return model.Errorf(model.Unavailable, "libvirt did not answer in time: %w", ctx.Err())
	}
	return coded(err)
}

// usable reports whether the session can be used again.
func (s *session) usable() bool {
	select {
	case <-s.conn.lost:
		return false
	default:
		return true
	}
}

// closeWait bounds a polite goodbye.
const closeWait = time.Second

// close says goodbye if libvirtd still listens, and ends the session.
func (s *session) close() {
	if s.usable() {
		t := time.AfterFunc(closeWait, func() { _ = s.conn.Close() })
		_ = s.l.Disconnect()
		t.Stop()
	}
	_ = s.conn.Close()
}

// idle keeps sessions between calls.
type idle struct{ sessions chan *session }

// maxIdle is how many sessions are kept; more may be in use.
const maxIdle = 2

// do runs f in a session, within a time.
func (h *Hypervisor) do(
	ctx context.Context, limit time.Duration, f func(*libvirt.Libvirt) error,
) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	s, err := h.session(ctx)
	if err != nil {
		return err
	}
	err = s.call(ctx, f)
	if !s.usable() || ctx.Err() != nil {
		s.close()
		return err
	}
	select {
	case h.idle.sessions <- s:
	default:
		s.close()
	}
	return err
}

// session takes an idle session or makes one.
func (h *Hypervisor) session(ctx context.Context) (*session, error) {
	for {
		select {
		case s := <-h.idle.sessions:
			if s.usable() {
				return s, nil
			}
			s.close()
		default:
			return connect(ctx, h.socket)
		}
	}
}

// coded gives an error of libvirt a code of ours.
func coded(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, libvirt.ErrInterrupted) {
		return model.Errorf(model.Unavailable, "the connection to libvirt was lost: %w", err)
	}
	e, ok := errors.AsType[libvirt.Error](err)
	if !ok {
		return model.Errorf(model.Unavailable, "libvirt: %w", err)
	}
	return model.Errorf(codeOf(libvirt.ErrorNumber(e.Code)), "libvirt: %w", err)
}

//nolint:exhaustive // libvirt has a hundred codes; the others tell nothing to a program
func codeOf(n libvirt.ErrorNumber) model.Code {
	switch n {
	case libvirt.ErrNoDomain, libvirt.ErrNoDomainMetadata:
		return model.NotFound
	case libvirt.ErrOperationInvalid, libvirt.ErrDomExist:
		return model.Conflict
	case libvirt.ErrXMLError, libvirt.ErrXMLDetail, libvirt.ErrXMLInvalidSchema,
		libvirt.ErrConfigUnsupported, libvirt.ErrInvalidArg:
		return model.Invalid
	default:
		return model.Unavailable
	}
}

// text wraps an error with what was being done, keeping its code.
func text(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}
