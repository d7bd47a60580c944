package api_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"drystone.example/drystone/backend/api/apitest"
	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

const consoleProto = "drystone.console.v1"

// A consoles is a node with two machines, web and other.
type consoles struct {
	*apitest.Rig

	t *testing.T
}

func newConsoles(t *testing.T) consoles {
	t.Helper()
	r := apitest.New(t)
	for _, name := range []string{"web", "other"} {
		spec := schema.VMSpec{Name: name, CPUs: 1, Memory: 512 << 20, Disks: []schema.DiskFrom{{Size: 1 << 30}}}
		if _, err := r.Root().CreateVM(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
	}
	return consoles{r, t}
}

// ticket asks for one, as the subprotocol that presents it.
func (c consoles) ticket(token model.Secret, kind, mode string) string {
	c.t.Helper()
	w := post(c.Rig, "/vms/web/console", token.Reveal(), "192.0.2.1", `{"kind":"`+kind+`","mode":"`+mode+`"}`)
	var k schema.ConsoleTicket
	decode(c.t, w, &k)
	if left := time.Until(k.Expires); left > 30*time.Second || !strings.HasPrefix(k.URL, "/api/v1/vms/") ||
		!strings.HasSuffix(k.URL, "/console/"+kind) || strings.Contains(k.URL, k.Ticket) {
		c.t.Errorf("a ticket for %v at %s", left, k.URL)
	}
	return "ticket." + k.Ticket
}

// open opens a console, of which the first word is a notice.
func (c consoles) open(token model.Secret, kind, mode string) (*websocket.Conn, schema.ConsoleNotice) {
	c.t.Helper()
	conn, status := dial(c.t, c.Rig, "/vms/web/console/"+kind, "", consoleProto,
		c.ticket(token, kind, mode), "auth."+token.Reveal())
	if status != http.StatusSwitchingProtocols || conn.Subprotocol() != consoleProto {
		c.t.Fatalf("with a ticket: %d", status)
	}
	return conn, c.notice(conn)
}

func (c consoles) notice(conn *websocket.Conn) (n schema.ConsoleNotice) {
	c.t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		c.t.Fatal(err)
	}
	kind, p, err := conn.ReadMessage()
	if err != nil || kind != websocket.TextMessage || json.Unmarshal(p, &n) != nil {
		c.t.Fatalf("%d %q, %v; want a notice", kind, p, err)
	}
	return n
}

// closes reads until the console is closed, and returns the code.
func (c consoles) closes(conn *websocket.Conn) int {
	c.t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		c.t.Fatal(err)
	}
	for {
		_, _, err := conn.ReadMessage()
		if e, ok := err.(*websocket.CloseError); ok { //nolint:errorlint // as the library has it
			return e.Code
		}
		if err != nil {
			c.t.Fatalf("the console ended without a word: %v", err)
		}
	}
}

// A ticket opens one console, once, of one machine, for the session that asked, for
// the node's own page; and it is used up by whatever is tried with it.
func TestConsoleTickets(t *testing.T) {
	c := newConsoles(t)
	token, stranger := c.Session(t, model.Operator), c.Session(t, model.Admin)
	again := c.Session(t, model.Operator) // of the same user
	own := "auth." + token.Reveal()
	const path = "/vms/web/console/serial"
	ticket := func() string { return c.ticket(token, "serial", "use") }
	for name, tt := range map[string]struct {
		path, origin string
		protocols    []string
		want         int
	}{
		"no ticket":             {path, "", []string{consoleProto, own}, http.StatusUnauthorized},
		"a guess":               {path, "", []string{consoleProto, own, "ticket." + strings.Repeat("A", 43)}, http.StatusUnauthorized},
		"no session":            {path, "", []string{consoleProto, ticket()}, http.StatusUnauthorized},
		"another user":          {path, "", []string{consoleProto, ticket(), "auth." + stranger.Reveal()}, http.StatusForbidden},
		"another session":       {path, "", []string{consoleProto, ticket(), "auth." + again.Reveal()}, http.StatusForbidden},
		"another machine":       {"/vms/other/console/serial", "", []string{consoleProto, own, ticket()}, http.StatusForbidden},
		"another kind":          {"/vms/web/console/screen", "", []string{consoleProto, own, ticket()}, http.StatusForbidden},
		"another protocol":      {path, "", []string{"drystone.v1", own, ticket()}, http.StatusBadRequest},
		"another site":          {path, "https://evil.example", []string{consoleProto, own, ticket()}, http.StatusForbidden},
		"a page without TLS":    {path, "http://" + c.Address(), []string{consoleProto, own, ticket()}, http.StatusForbidden},
		"a page without origin": {path, "null", []string{consoleProto, own, ticket()}, http.StatusForbidden},
	} {
		if _, status := dial(t, c.Rig, tt.path, tt.origin, tt.protocols...); status != tt.want {
			t.Errorf("%s: %d, want %d", name, status, tt.want)
		}
	}
	once := ticket()
	conn, status := dial(t, c.Rig, path, "https://"+c.Address(), consoleProto, once, own)
	if status != http.StatusSwitchingProtocols {
		t.Fatalf("from the node's own page: %d", status)
	}
	if _, status := dial(t, c.Rig, path, "", consoleProto, once, own); status != http.StatusUnauthorized {
		t.Errorf("with a used ticket: %d", status)
	}
	if log := c.Log.String(); strings.Contains(log, strings.TrimPrefix(once, "ticket.")) {
		t.Error("a ticket is in the log")
	}
	letGo(conn)
	viewer := c.As(t, model.Viewer)
	_, err := viewer.Console(t.Context(), "web", schema.ConsoleSpec{Kind: "serial"})
	apitest.CodeIs(t, "a viewer's console", err, model.Denied)
	_, err = viewer.Screen(t.Context(), "web")
	apitest.CodeIs(t, "a viewer's screenshot", err, model.Denied)
	if p, err := c.With(t, token).Screen(t.Context(), "web"); err != nil || !strings.HasPrefix(string(p), "\x89PNG") {
		t.Errorf("an operator's screenshot: %q, %v", p, err)
	}
}

// One types and the other watches, until he takes over; all of it stands in the audit
// log, and nothing of what was said in the log.
func TestConsoleIsShared(t *testing.T) {
	c := newConsoles(t)
	first, n := c.open(c.Session(t, model.Operator), "serial", "use")
	guest := c.Service.Guest()
	if !n.Writes || n.Writer != "operator" {
		t.Errorf("the first is told %+v", n)
	}
	token := c.Session(t, model.Admin)
	second, n := c.open(token, "serial", "use")
	if n.Writes || n.Writer != "operator" || len(n.Watchers) != 1 || n.Watchers[0] != "admin" {
		t.Errorf("the second is told %+v", n)
	}
	if n := c.notice(first); !n.Writes || len(n.Watchers) != 1 || n.Watchers[0] != "admin" {
		t.Errorf("then the first is told %+v", n)
	}
	send := func(conn *websocket.Conn, text string) {
		t.Helper()
		if err := conn.WriteMessage(websocket.BinaryMessage, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	send(second, "secretly")
	letGo(second) // all that it sent has been read before its end is told
	if n := c.notice(first); len(n.Watchers) != 0 {
		t.Errorf("when the second has left, the first is told %+v", n)
	}
	send(first, "typed")
	buf := make([]byte, 5)
	if _, err := io.ReadFull(guest, buf); err != nil || string(buf) != "typed" {
		t.Errorf("the guest read %q, %v", buf, err)
	}
	third, n := c.open(token, "serial", "take")
	if !n.Writes || n.Writer != "admin" {
		t.Errorf("who takes over is told %+v", n)
	}
	if code := c.closes(first); code != schema.CloseTaken {
		t.Errorf("who wrote before is closed with %d", code)
	}
	if err := guest.Close(); err != nil {
		t.Fatal(err)
	}
	if code := c.closes(third); code != websocket.CloseNormalClosure {
		t.Errorf("after the guest's end: %d", code)
	}
	var seen []string
	root := c.Root()
	apitest.WaitFor(t, "the audit log", func() bool {
		rows, err := root.Audit(t.Context(), 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		seen = nil
		for _, row := range rows.Items {
			if row.Verb == "vm.console" {
				seen = append(seen, row.Actor.User+row.Object[len("vm 0123456789abc web"):]+" "+row.Result)
			}
		}
		return len(seen) == 6
	})
	all := strings.Join(seen, "\n")
	for _, want := range []string{
		"operator serial opened ok", "admin serial opened to watch ok", "admin serial opened ok",
		"operator serial closed ok", "admin serial closed ok",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("the audit log has not %q:\n%s", want, all)
		}
	}
	if log := c.Log.String(); strings.Contains(log, "typed") || strings.Contains(log, "secretly") {
		t.Error("what was typed is in the log")
	}
}

// A console ends with its session, at once.
func TestConsoleEndsWithItsSession(t *testing.T) {
	c := newConsoles(t)
	for _, tt := range []struct {
		name string
		end  func(model.Secret)
	}{
		{"logged out", func(token model.Secret) {
			if err := c.With(t, token).Logout(t.Context()); err != nil {
				t.Fatal(err)
			}
		}},
		{"deleted", func(model.Secret) {
			view := c.Record.Local()
			user, err := view.FindUser("operator")
			if err != nil {
				t.Fatal(err)
			}
			c.Apply(t, command.UserDelete{User: user.ID})
		}},
	} {
		token := c.Session(t, model.Operator)
		conn, _ := c.open(token, "screen", "use")
		guest := c.Service.Guest()
		late := c.ticket(token, "screen", "use")
		tt.end(token)
		if code := c.closes(conn); code != websocket.ClosePolicyViolation {
			t.Errorf("%s: closed with %d", tt.name, code)
		}
		if p, err := io.ReadAll(guest); err != nil || len(p) > 0 {
			t.Errorf("%s: the guest's end reads %q, %v", tt.name, p, err)
		}
		if _, status := dial(t, c.Rig, "/vms/web/console/screen", "", consoleProto, late, "auth."+token.Reveal()); status != http.StatusUnauthorized {
			t.Errorf("%s: a ticket of before: %d", tt.name, status)
		}
	}
}
