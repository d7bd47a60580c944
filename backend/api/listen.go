package api

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"golang.org/x/sys/unix"
)

// maxConns bounds the connections of each listener. One more waits in the
// kernel's queue until another one ends.
const maxConns = 512

// A capped listener accepts up to a number of connections at a time.
type capped struct {
	net.Listener

	room chan struct{}
	done chan struct{}
	once sync.Once
}

func newCapped(l net.Listener, n int) *capped {
	return &capped{Listener: l, room: make(chan struct{}, n), done: make(chan struct{})}
}

func (l *capped) Accept() (net.Conn, error) {
	select {
	case l.room <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.room
		return nil, err //nolint:wrapcheck // http.Server compares it
	}
	return &cappedConn{Conn: conn, leave: sync.OnceFunc(func() { <-l.room })}, nil
}

func (l *capped) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close() //nolint:wrapcheck // as the listener has it
}

type cappedConn struct {
	net.Conn

	leave func()
}

func (c *cappedConn) Close() error {
	defer c.leave()
	return c.Conn.Close() //nolint:wrapcheck // as the connection has it
}

// peer is who is at the other end of the node's own socket.
type peer struct{ uid uint32 }

type peerKey struct{}

func isRoot(ctx context.Context) bool {
	p, ok := ctx.Value(peerKey{}).(peer)
	return ok && p.uid == 0
}

// withPeer notes the credentials of a connection over the node's own socket; the
// kernel vouches for them.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	if c, ok := conn.(*cappedConn); ok {
		conn = c.Conn
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return ctx
	}
	p, err := credentials(u)
	if err != nil {
		p = peer{uid: ^uint32(0)}
	}
	return context.WithValue(ctx, peerKey{}, p)
}

func credentials(u *net.UnixConn) (peer, error) {
	raw, err := u.SyscallConn()
	if err != nil {
		return peer{}, fmt.Errorf("read peer credentials: %w", err)
	}
	var cred *unix.Ucred
	var inner error
	err = raw.Control(func(fd uintptr) {
		cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil {
		return peer{}, fmt.Errorf("read peer credentials: %w", err)
	}
	if inner != nil {
		return peer{}, fmt.Errorf("read peer credentials: %w", inner)
	}
	return peer{uid: cred.Uid}, nil
}

// doorTLS names HTTP/2 itself: the server looks for it once, at its first
// listener, and that may be the one without TLS.
func (s *Server) doorTLS() *tls.Config {
	if s.TLS == nil {
		return nil
	}
	c := s.TLS.Clone()
	c.NextProtos = []string{"h2", "http/1.1"}
	return c
}

// httpServer has the bounds of every connection.
func (s *Server) httpServer() *http.Server {
	return &http.Server{
		Handler:           s.handler,
		TLSConfig:         s.doorTLS(),
		ReadHeaderTimeout: headerTime,
		ReadTimeout:       readTime,
		WriteTimeout:      writeTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
		ConnContext:       withPeer,
	}
}
