package gateway

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"drystone.example/drystone/backend/model"
)

const (
	// Frames of the live stream grow with the cluster; a page only ever sends
	// requests and keystrokes.
	maxFromCluster = 16 << 20
	maxFromPage    = 1 << 20

	writeTimeout = 10 * time.Second
)

// pipe joins the page's websocket to one of the cluster's.
func (g *Gateway) pipe(w http.ResponseWriter, r *http.Request, u *upstream, path string) {
	wanted := forCluster(protocols(r), u.session())
	dialer := websocket.Dialer{
		NetDialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return u.dial(ctx) },
		HandshakeTimeout:  2 * dialTimeout,
		Subprotocols:      wanted,
	}
	header := http.Header{}
	if token := u.session().Reveal(); token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	far, resp, err := dialer.DialContext(r.Context(), "wss://cluster"+path, header)
	if err != nil {
		refuseHandshake(w, resp, err)
		return
	}
	defer far.Close()
	upgrader := websocket.Upgrader{
		HandshakeTimeout: dialTimeout,
		CheckOrigin:      func(*http.Request) bool { return true }, // the guard has looked
	}
	if p := far.Subprotocol(); p != "" {
		upgrader.Subprotocols = []string{p}
	}
	near, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		g.log.Debug("page's websocket", "err", err)
		return // Upgrade has answered
	}
	defer near.Close()
	far.SetReadLimit(maxFromCluster)
	near.SetReadLimit(maxFromPage)
	join(r.Context(), near, far)
}

// forCluster replaces the launch token by the session's.
func forCluster(asked []string, session model.Secret) []string {
	out := slices.DeleteFunc(asked, func(p string) bool { return strings.HasPrefix(p, authProtocol) })
	if !slices.Contains(out, "drystone.v1") {
		return out // a console has a ticket of its own
	}
	return append(out, authProtocol+session.Reveal())
}

// refuseHandshake hands on what the cluster answered instead of a websocket.
func refuseHandshake(w http.ResponseWriter, resp *http.Response, err error) {
	if resp == nil || !errors.Is(err, websocket.ErrBadHandshake) {
		refuseUpstream(w, err)
		return
	}
	defer resp.Body.Close()
	code := model.Unavailable
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		code = model.Unknown
	case http.StatusForbidden:
		code = model.Denied
	case http.StatusNotFound:
		code = model.NotFound
	}
	refuse(w, resp.StatusCode, code, "the cluster refused the connection")
}

// join copies messages both ways until one side ends or ctx does, and returns
// when both directions have stopped.
func join(ctx context.Context, near, far *websocket.Conn) {
	done := make(chan struct{}, 2)
	go func() {
		copyMessages(near, far)
		done <- struct{}{}
	}()
	go func() {
		copyMessages(far, near)
		done <- struct{}{}
	}()
	left := 2
	select {
	case <-done:
		left--
	case <-ctx.Done():
	}
	// Closing unblocks the other direction's read.
	//nolint:errcheck // both are done with
	errors.Join(near.Close(), far.Close())
	for range left {
		<-done
	}
}

// copyMessages copies from src to dst, and tells dst why it ended.
func copyMessages(dst, src *websocket.Conn) {
	for {
		kind, message, err := src.ReadMessage()
		if err != nil {
			text := websocket.FormatCloseMessage(websocket.CloseGoingAway, "")
			var ce *websocket.CloseError
			if errors.As(err, &ce) && ce.Code != websocket.CloseAbnormalClosure &&
				ce.Code != websocket.CloseNoStatusReceived {
				text = websocket.FormatCloseMessage(ce.Code, ce.Text)
			}
			//nolint:errcheck // the connection is closed next either way
			dst.WriteControl(websocket.CloseMessage, text, time.Now().Add(writeTimeout))
			return
		}
		if dst.SetWriteDeadline(time.Now().Add(writeTimeout)) != nil {
			return
		}
		if dst.WriteMessage(kind, message) != nil {
			return
		}
	}
}
