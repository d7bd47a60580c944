package guard

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/proc"
	"drystone.example/drystone/backend/unixsock"
)

// The protocol: one JSON object a line, each request answered by one response, in
// order. Both sides come from one release, and a newer guard only ever asks an
// older one to retire; that request never changes.

// A request asks one thing.
type request struct {
	Register *proc.Guest `json:"register,omitempty"`
	Forget   model.VMID  `json:"forget,omitzero"`
	Deadline Boottime    `json:"deadline,omitzero"`
	Retire   bool        `json:"retire,omitempty"` // say the status, and end
}

// A response is an error, or not; with the status if nothing else was asked.
type response struct {
	Code   model.Code `json:"code,omitempty"`
	Text   string     `json:"text,omitempty"`
	Status *Status    `json:"status,omitempty"`
}

// A Status is what a guard guards.
type Status struct {
	Process  proc.ID      `json:"process"` // of the guard
	Deadline Boottime     `json:"deadline"`
	Guests   []proc.Guest `json:"guests"`
	Killed   int          `json:"killed"` // guests, since the guard started
}

const (
	maxConns   = 8       // at a time; a daemon has one
	maxRequest = 4 << 10 // bytes
	writeWait  = time.Second
)

// A server answers daemons.
type server struct {
	ward   *ward
	mem    *memory
	retire context.CancelFunc
	conns  chan struct{} // one token per connection
}

// serve answers until ctx ends.
func (s *server) serve(ctx context.Context, l *unixsock.Listener) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		select {
		case s.conns <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := l.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			s.retire() // also those who are connected now
			return errors.Join(fmt.Errorf("accept: %w", err), l.Close())
		}
		serving.Go(func() {
			defer func() { <-s.conns }()
			s.talk(ctx, conn)
		})
	}
}

// talk answers one connection until it ends.
func (s *server) talk(ctx context.Context, conn *net.UnixConn) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	defer func() { _ = conn.Close() }()
	if cred, err := credentials(conn); err != nil ||
		cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return
	}
	in := bufio.NewScanner(conn)
	in.Buffer(make([]byte, 0, maxRequest), maxRequest)
	for in.Scan() {
		resp := s.answer(in.Bytes())
		b, err := json.Marshal(resp)
		if err != nil {
			return
		}
		if err := conn.SetWriteDeadline(time.Now().Add(writeWait)); err != nil {
			return
		}
		if _, err := conn.Write(append(b, '\n')); err != nil {
			return
		}
	}
}

// answer does what one line asks.
func (s *server) answer(line []byte) response {
	var req request
	if err := json.Unmarshal(line, &req); err != nil {
		return failure(model.Errorf(model.Invalid, "the request is not understood: %w", err))
	}
	switch {
	case req.Register != nil:
		s.ward.prune()
		return failure(s.ward.register(*req.Register))
	case req.Forget != 0:
		s.ward.forget(req.Forget)
		return response{}
	case req.Deadline != 0:
		deadline, err := s.ward.renew(req.Deadline)
		if err == nil {
			s.mem.remember(deadline)
		}
		return failure(err)
	}
	status, err := s.ward.status()
	if err != nil {
		return failure(err)
	}
	if req.Retire {
		defer s.retire()
	}
	return response{Status: &status}
}

func failure(err error) response {
	if err == nil {
		return response{}
	}
	return response{Code: model.CodeOf(err), Text: err.Error()}
}

// credentials says who is at the other end.
func credentials(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("who is there: %w", err)
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); e != nil {
		err = e
	}
	if err != nil {
		return nil, fmt.Errorf("who is there: %w", err)
	}
	return cred, nil
}
