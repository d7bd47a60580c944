package api

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/model"
)

// The bounds of a websocket.
const (
	pingEvery   = 20 * time.Second
	pongWithin  = 60 * time.Second
	socketWrite = 10 * time.Second
	recheck     = time.Minute
)

// errSessionEnded closes a socket whose session is no longer good.
var errSessionEnded = errors.New("the session has ended")

// upgrade makes a websocket of a request, after a look at where it comes from:
// a page may use only its own server, and what sends no origin is no page, which
// must have sent its token in a header or a ticket or be on the node.
func (s *Server) upgrade(w http.ResponseWriter, req *http.Request, protocol string, limit int64) (*websocket.Conn, error) {
	if err := mayUpgrade(req, protocol); err != nil {
		return nil, err
	}
	up := websocket.Upgrader{
		HandshakeTimeout: headerTime,
		ReadBufferSize:   4 << 10,
		WriteBufferSize:  16 << 10,
		Subprotocols:     []string{protocol},
		CheckOrigin:      func(*http.Request) bool { return true }, // done by mayUpgrade
	}
	conn, err := up.Upgrade(w, req, nil)
	if err != nil {
		// It has been answered by the upgrader.
		return nil, errors.Join(errUpgrade, err)
	}
	conn.SetReadLimit(limit)
	return conn, nil
}

// mayUpgrade is what upgrade asks of a request.
func mayUpgrade(req *http.Request, protocol string) error {
	if !slices.Contains(websocket.Subprotocols(req), protocol) {
		return model.Errorf(model.Invalid, "this is a websocket of the subprotocol %s", protocol)
	}
	if !originAllowed(req) {
		return model.Errorf(model.Denied, "another web page may not use the api")
	}
	return nil
}

var errUpgrade = errors.New("no websocket came of the request")

func originAllowed(req *http.Request) bool {
	origin := req.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Scheme == "https" && u.Host == req.Host
}

// A sender is the writing half of a websocket, which one goroutine at a time may
// use; control frames take their turn among the others.
type sender struct {
	conn *websocket.Conn

	mu sync.Mutex // held during one write, which has a deadline
}

func (s *sender) send(kind int, p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.conn.SetWriteDeadline(time.Now().Add(socketWrite)); err != nil {
		return err //nolint:wrapcheck // the connection is gone
	}
	return s.conn.WriteMessage(kind, p) //nolint:wrapcheck // the connection is gone
}

// end says goodbye, if there is still somebody to say it to.
func (s *sender) end(reason error) error {
	code, text := websocket.CloseNormalClosure, ""
	switch {
	case reason == nil:
	case errors.Is(reason, errSessionEnded):
		code, text = websocket.ClosePolicyViolation, reason.Error()
	case errors.Is(reason, errStopping):
		code, text = websocket.CloseGoingAway, reason.Error()
	case errors.Is(reason, errTimeUp):
		code, text = websocket.ClosePolicyViolation, reason.Error()
	case model.CodeOf(reason) == model.Conflict:
		code, text = schema.CloseTaken, reason.Error()
	case model.CodeOf(reason) == model.Unavailable:
		code, text = websocket.CloseTryAgainLater, "the machine's node does not answer"
	case model.CodeOf(reason) != model.Internal:
		code, text = websocket.ClosePolicyViolation, reason.Error()
	default:
		code = websocket.CloseInternalServerErr
	}
	if len(text) > 120 { // a control frame has at most 125 bytes
		text = text[:120]
	}
	deadline := time.Now().Add(time.Second)
	return s.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, text), deadline) //nolint:wrapcheck // best effort
}

var errStopping = errors.New("the node is stopping")

// letGo closes what has nothing more to say.
func letGo(c io.Closer) { _ = c.Close() }

// keepAlive makes reads fail when the client has not answered pings for long.
func keepAlive(conn *websocket.Conn) error {
	extend := func() error { return conn.SetReadDeadline(time.Now().Add(pongWithin)) }
	conn.SetPongHandler(func(string) error { return extend() })
	return extend()
}

func (s *sender) ping() error {
	return s.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(socketWrite)) //nolint:wrapcheck // the connection is gone
}
