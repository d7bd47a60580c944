package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/auth"
	"drystone.example/drystone/backend/model"
)

const (
	consoleProtocol = "drystone.console.v1"
	consoleLimit    = 1 << 20 // bytes of a client's message
	consoleLife     = 8 * time.Hour
	consoleOpen     = 15 * time.Second

	ticketLife = 30 * time.Second
	maxTickets = 1024
)

// tickets are the consoles that were asked for and not yet opened, in the memory
// of the node that was asked; the websocket comes to the same node. Only digests
// are kept. The zero tickets is ready.
type tickets struct {
	mu      sync.Mutex // guards pending; nothing blocks under it
	pending map[[sha256.Size]byte]ticket
}

// A ticket is for one machine, by one session, once.
type ticket struct {
	call    call
	vm      model.VMID
	expires time.Time
}

// issue makes a ticket and returns the text that opens it.
func (t *tickets) issue(c call, vm model.VMID) (string, time.Time, error) {
	var b [32]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	text := base64.RawURLEncoding.EncodeToString(b[:])
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for digest, old := range t.pending {
		if !now.Before(old.expires) {
			delete(t.pending, digest)
		}
	}
	if len(t.pending) >= maxTickets {
		return "", time.Time{}, model.Errorf(model.Unavailable, "too many consoles are being opened; try again soon")
	}
	if t.pending == nil {
		t.pending = map[[sha256.Size]byte]ticket{}
	}
	expires := now.Add(ticketLife)
	t.pending[sha256.Sum256([]byte(text))] = ticket{call: c, vm: vm, expires: expires}
	return text, expires, nil
}

// redeem takes a ticket. It is found by its digest, so that the time it takes
// tells nothing about tickets that there are.
func (t *tickets) redeem(text string) (ticket, error) {
	digest := sha256.Sum256([]byte(text))
	t.mu.Lock()
	defer t.mu.Unlock()
	k, ok := t.pending[digest]
	delete(t.pending, digest)
	if !ok || !time.Now().Before(k.expires) {
		return ticket{}, model.Errorf(model.Unknown, "the ticket is used up or has run out; ask for another one")
	}
	return k, nil
}

type consoleInput struct {
	Ref  string `path:"ref" minLength:"1" maxLength:"63"`
	Body schema.ConsoleSpec
}

// createTicket lets its caller open a machine's console, once, soon, here.
func (s *Server) createTicket(ctx context.Context, in *consoleInput) (*out[schema.ConsoleTicket], error) {
	id, err := s.vmID(ctx, in.Ref)
	if err != nil {
		return nil, err
	}
	text, expires, err := s.tickets.issue(callOf(ctx), id)
	path := Base + strings.Replace(serialPath, "{ref}", id.String(), 1)
	return answer(schema.ConsoleTicket{Ticket: text, Expires: expires.UTC(), URL: path}, err)
}

// serialConsole is a machine's serial port as a websocket of binary messages.
func (s *Server) serialConsole(w http.ResponseWriter, req *http.Request) error {
	text, ok := subprotocol(req, "ticket.")
	if !ok {
		return model.Errorf(model.Unknown, "a console needs a ticket")
	}
	k, err := s.tickets.redeem(text)
	if err != nil {
		return err
	}
	if !s.stillGood(k.call, auth.Console, auth.VM) {
		return model.Errorf(model.Unknown, "the session has ended; log in again")
	}
	id, err := s.vmID(req.Context(), req.PathValue("ref"))
	if err != nil {
		return err
	}
	if id != k.vm {
		return model.Errorf(model.Denied, "the ticket is for another machine")
	}
	ctx, leave := s.lasting(context.WithoutCancel(req.Context()))
	defer leave()
	port, err := s.openConsole(ctx, id)
	if err != nil {
		return err
	}
	defer letGo(port)
	conn, err := s.upgrade(w, req, consoleProtocol, consoleLimit)
	if err != nil {
		return err
	}
	defer letGo(conn)
	by := []any{"vm", id, "user", k.call.Name, "address", k.call.address, "request", k.call.request}
	s.Log.Info("console opened", by...)
	err = s.bridge(ctx, conn, port, k.call)
	s.Log.Info("console closed", by...)
	return err
}

func (s *Server) openConsole(ctx context.Context, id model.VMID) (io.ReadWriteCloser, error) {
	ctx, cancel := context.WithTimeout(ctx, consoleOpen)
	defer cancel()
	port, err := s.Service.SerialConsole(ctx, id)
	if err != nil {
		return nil, err //nolint:wrapcheck // it has its code
	}
	return port, nil
}

// bridge passes bytes on until either side ends, the session does, or the time is
// up. Its two readers end because it closes what they read from.
func (s *Server) bridge(ctx context.Context, conn *websocket.Conn, port io.ReadWriteCloser, c call) error {
	if err := keepAlive(conn); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, consoleLife)
	defer cancel()
	out := &sender{conn: conn}
	var readers sync.WaitGroup
	ended := make(chan error, 2)
	readers.Go(func() { ended <- fromGuest(port, out) })
	readers.Go(func() { ended <- toGuest(conn, port) })
	err := s.attend(ctx, out, ended, c)
	err = errors.Join(err, out.end(err), port.Close(), conn.Close())
	readers.Wait()
	return err
}

// attend waits for the end.
func (s *Server) attend(ctx context.Context, out *sender, ended <-chan error, c call) error {
	ping, check := time.NewTicker(pingEvery), time.NewTicker(recheck)
	defer ping.Stop()
	defer check.Stop()
	for {
		select {
		case err := <-ended:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-ping.C:
			if err := out.ping(); err != nil {
				return err
			}
		case <-check.C:
			if !s.stillGood(c, auth.Console, auth.VM) {
				return errSessionEnded
			}
		case <-ctx.Done():
			return errStopping
		}
	}
}

func fromGuest(port io.Reader, out *sender) error {
	buf := make([]byte, 16<<10)
	for {
		n, err := port.Read(buf)
		if n > 0 {
			if late := out.send(websocket.BinaryMessage, buf[:n]); late != nil {
				return late
			}
		}
		if err != nil {
			return err //nolint:wrapcheck // io.EOF is told apart
		}
	}
}

func toGuest(conn *websocket.Conn, port io.Writer) error {
	for {
		_, p, err := conn.ReadMessage()
		if err != nil {
			return err //nolint:wrapcheck // the connection is gone
		}
		if _, err := port.Write(p); err != nil {
			return err //nolint:wrapcheck // the port is gone
		}
	}
}
