//go:build linux

package gateway_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// dial opens a websocket as the page does; without one, the status says why not.
func (a *app) dial(t *testing.T, path string, protocols ...string) (conn *websocket.Conn, status int) {
	t.Helper()
	d := websocket.Dialer{Subprotocols: protocols}
	conn, resp, err := d.DialContext(t.Context(), "ws://"+a.Address()+path, http.Header{"Origin": {window}})
	if err != nil && !errors.Is(err, websocket.ErrBadHandshake) {
		t.Fatalf("websocket %s: %v", path, err)
	}
	defer resp.Body.Close()
	if conn != nil {
		t.Cleanup(func() { conn.Close() })
	}
	return conn, resp.StatusCode
}

// frames reads messages until one is as wanted.
func (a *app) frames(t *testing.T, conn *websocket.Conn, is func(schema.MetricsFrame) bool) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for {
		_, text, err := conn.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.seen.Write(text); err != nil {
			t.Fatal(err)
		}
		var f schema.MetricsFrame
		if err := json.Unmarshal(text, &f); err != nil {
			t.Fatalf("frame %s: %v", text, err)
		}
		if is(f) {
			return
		}
	}
}

// The live stream of a cluster comes through, by the session of who logged in: the
// node never sees the launch token, the page never the session.
func TestLive(t *testing.T) {
	n, a := startNode(t), startApp(t)
	session := a.remember(t, n, n.ca.Pin(), n.address)
	conn, status := a.dial(t, api("/live"), "drystone.v1", "auth."+a.Token())
	if conn == nil {
		t.Fatalf("the live stream was refused with %d", status)
	}
	if got := conn.Subprotocol(); got != "drystone.v1" {
		t.Errorf("the page got the sub-protocol %q", got)
	}
	if err := conn.WriteJSON(schema.LiveRequest{Op: "subscribe", Topic: schema.TopicNodes}); err != nil {
		t.Fatal(err)
	}
	a.frames(t, conn, func(f schema.MetricsFrame) bool { return f.Topic == schema.TopicNodes && len(f.IDs) > 0 })

	n.mu.Lock()
	offers := strings.Join(n.offers, " ")
	n.mu.Unlock()
	if strings.Contains(offers, a.Token()) || !strings.Contains(offers, session.Reveal()) {
		t.Error("the node was not shown the session, or was shown the launch token")
	}
	for _, r := range n.requests() {
		if r.Header.Get("Origin") != "" || r.Header.Get("Cookie") != "" {
			t.Errorf("%s came with what the page sent: %v", r.URL, r.Header)
		}
	}
}

// What the cluster says when it ends a stream is said to the page.
func TestLiveEnds(t *testing.T) {
	n, a := startNode(t), startApp(t)
	a.remember(t, n, n.ca.Pin(), n.address)
	conn, _ := a.dial(t, api("/live"), "drystone.v1", "auth."+a.Token())
	if err := conn.WriteMessage(websocket.TextMessage, []byte(`{"op":"subscribe","topic":"weather"}`)); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for {
		_, _, err := conn.ReadMessage()
		if err == nil {
			continue
		}
		var ce *websocket.CloseError
		if !errors.As(err, &ce) || ce.Code != websocket.ClosePolicyViolation || !strings.Contains(ce.Text, "weather") {
			t.Errorf("the stream ended with %v", err)
		}
		return
	}
}

// A websocket that the cluster refuses is refused with the same status.
func TestLiveRefused(t *testing.T) {
	n, a := startNode(t), startApp(t)
	a.remember(t, n, n.ca.Pin(), n.address)
	if err := a.vault.Delete(cluster); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		"/live": http.StatusUnauthorized, "/nothing": http.StatusNotFound,
	} {
		if _, got := a.dial(t, api(path), "drystone.v1", "auth."+a.Token()); got != want {
			t.Errorf("websocket %s = %d, want %d", path, got, want)
		}
	}
}

// A machine's console comes through both ways. Beside its ticket the node is shown
// the session, in a header: no token is offered as a subprotocol.
func TestConsole(t *testing.T) {
	n, a := startNode(t), startApp(t)
	session := a.remember(t, n, n.ca.Pin(), n.address)
	id := model.NewID[model.VMID]()
	n.Apply(t, command.VMCreate{
		ID: id, Name: "web", CPUs: 1, Memory: 1 << 28,
		Boot: &model.Boot{Kernel: model.FileRef{Name: "vmlinuz", SHA256: strings.Repeat("0", 64), Size: 1}},
	})
	n.Apply(t, command.VMPower{VM: id, Power: model.PowerOn, Node: 1})
	var k schema.ConsoleTicket
	a.must(t, http.StatusOK, request{
		method: "POST", path: api("/vms/web/console"), body: map[string]string{"kind": "serial"},
	}, &k)
	conn, status := a.dial(t, "/c/"+cluster.String()+k.URL, "drystone.console.v1", "ticket."+k.Ticket, "auth."+a.Token())
	if conn == nil {
		t.Fatalf("the console was refused with %d", status)
	}
	guest := n.Service.Guest()
	defer guest.Close()
	if err := conn.WriteMessage(websocket.BinaryMessage, []byte("ls\n")); err != nil {
		t.Fatal(err)
	}
	typed := make([]byte, 3)
	if _, err := io.ReadFull(guest, typed); err != nil || string(typed) != "ls\n" {
		t.Errorf("the guest read %q, %v", typed, err)
	}
	if _, err := guest.Write([]byte("\x1b[1mfiles\xff")); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if kind, got, err := conn.ReadMessage(); err != nil || kind != websocket.TextMessage || !strings.Contains(string(got), `"writes":true`) {
		t.Errorf("first the page read %q, %v; want a notice of who is there", got, err)
	}
	if _, got, err := conn.ReadMessage(); err != nil || string(got) != "\x1b[1mfiles\xff" {
		t.Errorf("the page read %q, %v", got, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, offer := range n.offers {
		if strings.Contains(offer, session.Reveal()) || strings.Contains(offer, a.Token()) {
			t.Error("a token stands beside the ticket")
		}
	}
}

// Run returns though pages hold websockets open, and those end.
func TestRunEndsStreams(t *testing.T) {
	n, a := startNode(t), startApp(t)
	a.remember(t, n, n.ca.Pin(), n.address)
	conn, _ := a.dial(t, api("/live"), "drystone.v1", "auth."+a.Token())
	a.stop()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for {
		_, _, err := conn.ReadMessage()
		if err == nil {
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the page's stream is still open")
		}
		return
	}
}
