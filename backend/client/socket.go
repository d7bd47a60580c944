package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/model"
)

// A Live is a live stream. Next is for one goroutine, the rest for any.
type Live struct {
	conn *websocket.Conn
	stop func() bool

	mu sync.Mutex // held during one write, which has a deadline
}

// A Frame is one message of a live stream: either field is set.
type Frame struct {
	Metrics *schema.MetricsFrame
	Event   *schema.EventFrame
}

// Live opens the live stream. It ends with ctx or Close.
func (c *Client) Live(ctx context.Context) (*Live, error) {
	conn, err := c.websocket(ctx, "/live", []string{"drystone.v1"})
	if err != nil {
		return nil, err
	}
	l := &Live{conn: conn}
	l.stop = context.AfterFunc(ctx, func() { l.conn.NetConn().Close() }) // wakes the reader
	return l, nil
}

// Subscribe asks for a topic.
func (l *Live) Subscribe(t schema.Topic) error { return l.wish("subscribe", t) }

// Unsubscribe asks for no more of it.
func (l *Live) Unsubscribe(t schema.Topic) error { return l.wish("unsubscribe", t) }

func (l *Live) wish(op string, t schema.Topic) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.conn.SetWriteDeadline(time.Now().Add(dialTimeout)); err != nil {
		return ended(err)
	}
	if err := l.conn.WriteJSON(schema.LiveRequest{Op: op, Topic: t}); err != nil {
		return ended(err)
	}
	return nil
}

// Next waits for a message.
func (l *Live) Next() (Frame, error) {
	_, p, err := l.conn.ReadMessage()
	if err != nil {
		return Frame{}, ended(err)
	}
	var kind struct {
		Topic schema.Topic `json:"topic"`
	}
	if err := json.Unmarshal(p, &kind); err != nil {
		return Frame{}, ended(err)
	}
	var f Frame
	if kind.Topic == schema.TopicEvents {
		f.Event = &schema.EventFrame{}
		err = json.Unmarshal(p, f.Event)
	} else {
		f.Metrics = &schema.MetricsFrame{}
		err = json.Unmarshal(p, f.Metrics)
	}
	if err != nil {
		return Frame{}, ended(err)
	}
	return f, nil
}

// Close ends the stream.
func (l *Live) Close() error {
	l.stop()
	return l.conn.Close() //nolint:wrapcheck // as the connection has it
}

// A Console is a machine's screen or serial port. Reading and writing may go on at
// the same time, each in one goroutine.
type Console struct {
	// Notice is called by Read when who is there changes, if it is not nil.
	Notice func(schema.ConsoleNotice)

	conn *websocket.Conn
	rest []byte
}

// Console opens a console of a running machine.
func (c *Client) Console(ctx context.Context, ref string, spec schema.ConsoleSpec) (*Console, error) {
	t, err := post[schema.ConsoleTicket](ctx, c, at("vms", ref, "console"), spec)
	if err != nil {
		return nil, err
	}
	path := strings.TrimPrefix(t.URL, base)
	conn, err := c.websocket(ctx, path, []string{"drystone.console.v1", "ticket." + t.Ticket})
	if err != nil {
		return nil, err
	}
	return &Console{conn: conn}, nil
}

// Read reads what the machine wrote. The error is io.EOF when the machine ended the
// console: it stopped, or went to another node. It has the code Conflict when somebody
// took over.
func (k *Console) Read(p []byte) (int, error) {
	for len(k.rest) == 0 {
		kind, message, err := k.conn.ReadMessage()
		switch e, _ := errors.AsType[*websocket.CloseError](err); {
		case websocket.IsCloseError(err, websocket.CloseNormalClosure):
			return 0, io.EOF
		case websocket.IsCloseError(err, schema.CloseTaken):
			return 0, model.Errorf(model.Conflict, "%s", e.Text)
		case err != nil:
			return 0, ended(err)
		case kind == websocket.BinaryMessage:
			k.rest = message
			continue
		}
		var n schema.ConsoleNotice
		if json.Unmarshal(message, &n) == nil && k.Notice != nil {
			k.Notice(n)
		}
	}
	n := copy(p, k.rest)
	k.rest = k.rest[n:]
	return n, nil
}

// Write types into the machine.
func (k *Console) Write(p []byte) (int, error) {
	if err := k.conn.SetWriteDeadline(time.Now().Add(dialTimeout)); err != nil {
		return 0, ended(err)
	}
	if err := k.conn.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, ended(err)
	}
	return len(p), nil
}

// Leave says that nothing more will be typed. Reading ends when what was typed is on its
// way to the machine, within five seconds; a Close without it may lose the last of it.
func (k *Console) Leave() error {
	deadline := time.Now().Add(dialTimeout)
	if err := k.conn.SetReadDeadline(deadline); err != nil {
		return ended(err)
	}
	bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	if err := k.conn.WriteControl(websocket.CloseMessage, bye, deadline); err != nil {
		return ended(err)
	}
	return nil
}

// Close lets the port go.
func (k *Console) Close() error { return k.conn.Close() } //nolint:wrapcheck // as the connection has it

// websocket opens one; the protocols may hold a ticket.
func (c *Client) websocket(ctx context.Context, path string, protocols []string) (*websocket.Conn, error) {
	d := websocket.Dialer{
		NetDialContext: c.dial, TLSClientConfig: c.tls, HandshakeTimeout: dialTimeout, Subprotocols: protocols,
	}
	header := http.Header{}
	if token := c.token.Reveal(); token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	conn, resp, err := d.DialContext(ctx, "ws"+strings.TrimPrefix(c.url, "http")+base+path, header)
	if err == nil {
		return conn, nil
	}
	if resp != nil && errors.Is(err, websocket.ErrBadHandshake) {
		return nil, errors.Join(c.problem(resp), resp.Body.Close())
	}
	return nil, c.unreachable(ctx, err)
}

// ended is the error of a socket that ended; what the node said about it is kept.
func ended(err error) error {
	if e, ok := errors.AsType[*websocket.CloseError](err); ok && e.Text != "" {
		return model.Errorf(model.Unavailable, "the node closed the connection: %s", e.Text)
	}
	return fmt.Errorf("the connection ended: %w", &model.Error{
		Code: model.Unavailable, Text: "the connection to the node broke off", Err: err,
	})
}
