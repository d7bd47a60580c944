package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/auth"
	"drystone.example/drystone/backend/console"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

const (
	consoleProtocol = "drystone.console.v1"
	consoleLimit    = 1 << 20 // bytes of a client's message
	consoleLife     = 8 * time.Hour
	consoleOpen     = 15 * time.Second
	consoleAudit    = 5 * time.Second
)

var errTimeUp = errors.New("a console is closed after 8 hours")

// bearerOf is how a machine's node knows who asks for a console.
func bearerOf(c call) console.Bearer {
	return console.Bearer{User: c.User, Name: c.Name, Session: c.session}
}

type consoleInput struct {
	Ref  string `path:"ref" minLength:"1" maxLength:"63"`
	Body schema.ConsoleSpec
}

// createTicket lets its caller open a machine's console, once, soon, at any node.
func (s *Server) createTicket(ctx context.Context, in *consoleInput) (*out[schema.ConsoleTicket], error) {
	id, err := s.vmID(ctx, in.Ref)
	if err != nil {
		return nil, err
	}
	ask := console.Ask{VM: id, Kind: console.Kind(in.Body.Kind), Mode: console.Use, By: bearerOf(callOf(ctx))}
	if in.Body.Mode != "" {
		ask.Mode = console.Mode(in.Body.Mode)
	}
	path := map[console.Kind]string{console.Screen: screenPath, console.Serial: serialPath}[ask.Kind]
	t, err := s.Service.ConsoleTicket(ctx, ask)
	return answer(schema.ConsoleTicket{
		Ticket: t.Text, Expires: t.Expires.UTC(), URL: Base + strings.Replace(path, "{ref}", id.String(), 1),
	}, err)
}

// screenPicture is what a machine's screen shows now.
func (s *Server) screenPicture(w http.ResponseWriter, req *http.Request) error {
	id, err := s.vmID(req.Context(), req.PathValue("ref"))
	if err != nil {
		return err
	}
	p, err := s.Service.Picture(req.Context(), id)
	if err != nil {
		return err //nolint:wrapcheck // it has its code
	}
	w.Header().Set("Content-Type", "image/png")
	_, err = w.Write(p)
	return err //nolint:wrapcheck // the connection is gone
}

func (s *Server) screenConsole(w http.ResponseWriter, req *http.Request) error {
	return s.serveConsole(w, req, console.Screen)
}

func (s *Server) serialConsole(w http.ResponseWriter, req *http.Request) error {
	return s.serveConsole(w, req, console.Serial)
}

// serveConsole is a machine's console as a websocket: its bytes are binary messages,
// notices of who is there are text.
func (s *Server) serveConsole(w http.ResponseWriter, req *http.Request, kind console.Kind) error {
	if err := mayUpgrade(req, consoleProtocol); err != nil {
		return err
	}
	ticket, ok := subprotocol(req, "ticket.")
	if !ok {
		return model.Errorf(model.Unknown, "a console needs a ticket")
	}
	id, err := s.vmID(req.Context(), req.PathValue("ref"))
	if err != nil {
		return err
	}
	ctx, leave := s.lasting(context.WithoutCancel(req.Context()))
	defer leave()
	c := callOf(ctx)
	line, err := s.openLine(ctx, console.Hello{Ticket: ticket, VM: id, Kind: kind, By: bearerOf(c)})
	if err != nil {
		return err
	}
	defer line.Close()
	deed := command.VMConsole{VM: id, Console: string(kind), Writes: line.Writes()}
	if err := s.audit(ctx, c.actor(), deed); err != nil {
		return err
	}
	defer s.closed(ctx, c, deed)
	conn, err := s.upgrade(w, req, consoleProtocol, consoleLimit)
	if err != nil {
		return err
	}
	defer letGo(conn)
	return s.bridge(ctx, conn, line, c)
}

func (s *Server) openLine(ctx context.Context, h console.Hello) (*console.Line, error) {
	ctx, cancel := context.WithTimeout(ctx, consoleOpen)
	defer cancel()
	line, err := s.Service.OpenConsole(ctx, h)
	return line, err //nolint:wrapcheck // it has its code
}

// audit records that a console was opened, or closed. One that cannot be recorded is
// not opened.
func (s *Server) audit(ctx context.Context, by model.Actor, deed command.VMConsole) error {
	ctx, cancel := context.WithTimeout(ctx, consoleAudit)
	defer cancel()
	_, err := s.Record.Apply(ctx, by, deed)
	return err //nolint:wrapcheck // it has its code
}

// closed records the end, by whoever it was: the user may be gone by now, or have
// another role.
func (s *Server) closed(ctx context.Context, c call, deed command.VMConsole) {
	by := c.actor()
	by.UserID, by.Role = 0, ""
	deed.Closed = true
	if err := s.audit(context.WithoutCancel(ctx), by, deed); err != nil {
		s.Log.Warn("the end of a console was not recorded", "vm", deed.VM, "user", c.Name, "request", c.request, "err", err)
	}
}

// bridge passes on what is said until either side ends, the session does, or the time
// is up. Its two readers end because it closes what they read from.
func (s *Server) bridge(ctx context.Context, conn *websocket.Conn, line *console.Line, c call) error {
	if err := keepAlive(conn); err != nil {
		return err
	}
	out := &sender{conn: conn}
	var readers sync.WaitGroup
	ended := make(chan error, 2)
	readers.Go(func() { ended <- fromMachine(line, out) })
	readers.Go(func() { ended <- toMachine(conn, line) })
	err := s.attend(ctx, out, ended, c)
	err = errors.Join(err, out.end(err), conn.Close())
	line.Close()
	readers.Wait()
	return err
}

// attend waits for the end.
func (s *Server) attend(ctx context.Context, out *sender, ended <-chan error, c call) error {
	ping, check, late := time.NewTicker(pingEvery), time.NewTicker(recheck), time.NewTimer(consoleLife)
	defer ping.Stop()
	defer check.Stop()
	defer late.Stop()
	for view := s.Record.Local(); s.sameAs(c); {
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
		case <-view.Next():
			view = s.Record.Local()
		case <-late.C:
			return errTimeUp
		case <-ctx.Done():
			return errStopping
		}
	}
	return errSessionEnded
}

// sameAs reports whether who opened a console is still logged in, in the same role.
func (s *Server) sameAs(c call) bool {
	if !s.stillGood(c, auth.Console, auth.VM) {
		return false
	}
	if c.session == "" {
		return true
	}
	user, err := s.Record.Local().User(c.User)
	return err == nil && user.Role == c.Role
}

func fromMachine(line *console.Line, out *sender) error {
	for {
		n, p, err := line.Next()
		switch {
		case err != nil:
			return err //nolint:wrapcheck // io.EOF is told apart
		case n != nil:
			err = out.send(websocket.TextMessage, encode(schema.ConsoleNotice{
				Writes: n.Writes, Writer: n.Writer, Watchers: n.Watchers,
			}))
		default:
			err = out.send(websocket.BinaryMessage, p)
		}
		if err != nil {
			return err
		}
	}
}

func toMachine(conn *websocket.Conn, line io.Writer) error {
	for {
		kind, p, err := conn.ReadMessage()
		if err != nil {
			return err //nolint:wrapcheck // the connection is gone
		}
		if kind != websocket.BinaryMessage {
			return model.Errorf(model.Invalid, "a console takes binary messages only")
		}
		if _, err := line.Write(p); err != nil {
			return err //nolint:wrapcheck // the machine's node is gone
		}
	}
}
