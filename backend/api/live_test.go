package api_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"drystone.example/drystone/backend/api"
	"drystone.example/drystone/backend/api/apitest"
	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/client"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// follow opens a live stream of some topics that ends with the test.
func follow(t *testing.T, c *client.Client, topics ...schema.Topic) *client.Live {
	t.Helper()
	l, err := c.Live(t.Context())
	if err != nil {
		t.Fatalf("Live: %v", err)
	}
	t.Cleanup(func() { l.Close() }) //nolint:errcheck // it may have been ended by the server
	for _, topic := range topics {
		if err := l.Subscribe(topic); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func next(t *testing.T, l *client.Live) client.Frame {
	t.Helper()
	f, err := l.Next()
	if err != nil {
		t.Fatalf("Next: %v", err)
	}
	return f
}

func TestLiveMetrics(t *testing.T) {
	r := apitest.New(t)
	l := follow(t, r.As(t, model.Viewer), schema.TopicNodes, schema.TopicDisks, schema.TopicCluster)
	seen := map[schema.Topic][]uint64{}
	for len(seen[schema.TopicNodes]) < 2 || len(seen[schema.TopicDisks]) < 2 || len(seen[schema.TopicCluster]) < 2 {
		m := next(t, l).Metrics
		if m == nil || len(m.IDs) == 0 && m.Topic != schema.TopicDisks {
			continue
		}
		seen[m.Topic] = append(seen[m.Topic], m.Seq)
		if len(m.Age) != len(m.IDs) {
			t.Errorf("%s: %d ages of %d ids", m.Topic, len(m.Age), len(m.IDs))
		}
		for name, column := range m.V {
			if len(column) != len(m.IDs) {
				t.Errorf("%s: %d values of %s for %d ids", m.Topic, len(column), name, len(m.IDs))
			}
		}
		if m.Topic == schema.TopicNodes && (m.IDs[0] != apitest.Self.String() || m.V["mem_total"][0] <= 0) {
			t.Errorf("nodes: %+v", m)
		}
	}
	for topic, numbers := range seen {
		if !slices.IsSorted(numbers) {
			t.Errorf("%s: sequence %v", topic, numbers)
		}
	}
	for _, topic := range []schema.Topic{schema.TopicNodes, schema.TopicDisks, schema.TopicCluster} {
		if err := l.Unsubscribe(topic); err != nil {
			t.Fatal(err)
		}
	}
	h, err := r.As(t, model.Viewer).History(t.Context(), schema.TopicNodes, 60)
	if err != nil || len(h.T) != 60 || len(h.Series["cpu"]) != 60 || len(h.IDs) != 1 {
		t.Errorf("History has %d times of %v, %v", len(h.T), h.IDs, err)
	}
	_, err = r.As(t, model.Viewer).History(t.Context(), "weather", 60)
	apitest.CodeIs(t, "the history of no topic", err, model.Invalid)
}

// Changes of the record are told within a moment, and so is a node that goes away.
func TestLiveEvents(t *testing.T) {
	r := apitest.New(t)
	l := follow(t, r.As(t, model.Viewer), schema.TopicEvents)
	apitest.WaitFor(t, "the subscription", func() bool { return r.Subscribers() == 1 })
	ctx, c := t.Context(), r.Root()
	if _, err := c.CreateVolume(ctx, schema.VolumeSpec{Name: "data", Size: 1 << 30, Copies: 2}); err != nil {
		t.Fatal(err)
	}
	e := next(t, l).Event
	if e == nil || e.Kind != schema.EventChanged || !slices.Equal(e.Objects, []string{"volumes"}) || e.Seq != 1 {
		t.Errorf("after a new volume: %+v", e)
	}
	r.Service.Set(func(s *apitest.Service) { s.Up = map[model.NodeID]bool{apitest.Self: true} })
	e = next(t, l).Event
	if e == nil || !slices.Contains(e.Objects, "nodes") || e.Seq != 2 {
		t.Errorf("after a node went: %+v", e)
	}
}

// A client that does not read holds up nobody. It loses frames of metrics, and its
// sequence shows it; events it gets all of, in order.
func TestSlowClient(t *testing.T) {
	r := apitest.New(t)
	slow := follow(t, r.Root(), schema.TopicEvents, schema.TopicNodes)
	apitest.WaitFor(t, "the subscription", func() bool { return r.Subscribers() == 1 })
	start := time.Now()
	const events = 50
	for i := range 4_000 {
		r.PublishMetrics()
		if i%80 == 0 && i/80 < events {
			r.PublishEvent("vms")
		}
	}
	if took := time.Since(start); took > 8*time.Second {
		t.Fatalf("publishing took %v while a client did not read", took)
	}
	var got, lost uint64
	var last uint64
	for got < events {
		f := next(t, slow)
		switch {
		case f.Event != nil:
			got++
			if f.Event.Seq != got || f.Event.Kind != schema.EventChanged {
				t.Fatalf("event %+v, want number %d", f.Event, got)
			}
		case f.Metrics != nil:
			if last != 0 {
				lost += f.Metrics.Seq - last - 1
			}
			last = f.Metrics.Seq
		}
	}
	if lost == 0 {
		t.Error("no frame was lost: the client was not slow")
	}
}

// A client for which too many events wait is told to look at everything.
func TestResync(t *testing.T) {
	r := apitest.New(t)
	slow := follow(t, r.Root(), schema.TopicEvents, schema.TopicNodes)
	apitest.WaitFor(t, "the subscription", func() bool { return r.Subscribers() == 1 })
	for range 4_000 {
		r.PublishMetrics()
		r.PublishEvent("vms")
	}
	var seq uint64
	for {
		e := next(t, slow).Event
		if e == nil {
			continue
		}
		seq++
		if e.Seq != seq {
			t.Fatalf("event %+v, want number %d", e, seq)
		}
		if e.Kind == schema.EventResync {
			return
		}
	}
}

// A stream ends soon after its session does, and at once when its client talks
// nonsense.
func TestLiveEnds(t *testing.T) {
	r := apitest.New(t)
	c := r.As(t, model.Viewer)
	l := follow(t, c, schema.TopicEvents)
	apitest.WaitFor(t, "the subscription", func() bool { return r.Subscribers() == 1 })
	if err := c.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Next(); err == nil || !strings.Contains(err.Error(), "session has ended") {
		t.Errorf("after the log-out: %v", err)
	}
	if _, err := c.Live(t.Context()); model.CodeOf(err) != model.Unknown {
		t.Errorf("a stream without a session: %v", err)
	}
	odd := follow(t, r.As(t, model.Viewer))
	if err := odd.Subscribe("weather"); err != nil {
		t.Fatal(err)
	}
	if _, err := odd.Next(); err == nil || !strings.Contains(err.Error(), "no topic") {
		t.Errorf("after a topic that is none: %v", err)
	}
	deleted := follow(t, r.As(t, model.Operator), schema.TopicEvents)
	apitest.WaitFor(t, "the subscription", func() bool { return r.Subscribers() == 1 })
	r.Apply(t, command.UserDelete{User: r.Users[model.Operator].ID})
	if _, err := deleted.Next(); err == nil || !strings.Contains(err.Error(), "session has ended") {
		t.Errorf("after the user was deleted: %v", err)
	}
}

// dial opens a websocket as a browser would.
func dial(t *testing.T, r *apitest.Rig, path, origin string, protocols ...string) (*websocket.Conn, int) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(r.Web.Certificate())
	d := websocket.Dialer{TLSClientConfig: &tls.Config{RootCAs: roots}, Subprotocols: protocols}
	header := http.Header{}
	if origin != "" {
		header.Set("Origin", origin)
	}
	conn, resp, err := d.DialContext(t.Context(), "wss://"+r.Address()+api.Base+path, header)
	if resp == nil {
		t.Fatal(err)
	}
	defer letGo(resp.Body)
	if err != nil {
		return nil, resp.StatusCode
	}
	t.Cleanup(func() { conn.Close() })
	return conn, resp.StatusCode
}

func TestLiveFromABrowser(t *testing.T) {
	r := apitest.New(t)
	token := "auth." + r.Session(t, model.Viewer).Reveal()
	own := "https://" + r.Address()
	for _, c := range []struct {
		name, origin string
		protocols    []string
		status       int
	}{
		{"its own page", own, []string{"drystone.v1", token}, http.StatusSwitchingProtocols},
		{"no origin", "", []string{"drystone.v1", token}, http.StatusSwitchingProtocols},
		{"another page", "https://evil.example", []string{"drystone.v1", token}, http.StatusForbidden},
		{"its own host, not by TLS", "http://" + r.Address(), []string{"drystone.v1", token}, http.StatusForbidden},
		{"null", "null", []string{"drystone.v1", token}, http.StatusForbidden},
		{"no token", own, []string{"drystone.v1"}, http.StatusUnauthorized},
		{"a bad token", own, []string{"drystone.v1", "auth.x"}, http.StatusUnauthorized},
		{"no protocol", own, []string{token}, http.StatusBadRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, status := dial(t, r, "/live", c.origin, c.protocols...)
			if status != c.status {
				t.Fatalf("status %d, want %d", status, c.status)
			}
			// The token must not come back: only one protocol is chosen.
			if conn != nil && conn.Subprotocol() != "drystone.v1" {
				t.Errorf("the protocol is %q", conn.Subprotocol())
			}
		})
	}
}

// A message that is too long ends the stream instead of filling memory.
func TestLiveReadLimit(t *testing.T) {
	r := apitest.New(t)
	conn, _ := dial(t, r, "/live", "", "drystone.v1", "auth."+r.Session(t, model.Viewer).Reveal())
	if err := conn.WriteMessage(websocket.TextMessage, []byte(strings.Repeat(" ", 65<<10))); err != nil {
		t.Fatal(err)
	}
	if _, _, err := conn.ReadMessage(); err == nil {
		t.Error("a message of 65 KiB was taken")
	}
}

// The server's end closes streams, and Run waits for them.
func TestStopEndsStreams(t *testing.T) {
	r := apitest.New(t)
	config := r.Config
	config.Socket = t.TempDir() + "/s"
	server, err := api.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	c := client.Unix(config.Socket)
	apitest.WaitFor(t, "the socket", func() bool {
		_, err := c.Meta(t.Context())
		return err == nil
	})
	if _, err := c.CreateVolume(t.Context(), schema.VolumeSpec{Name: "data", Size: 1 << 30, Copies: 2}); err != nil {
		t.Fatal(err)
	}
	l := follow(t, c, schema.TopicEvents)
	exported := make(chan error, 1)
	ready := make(chan struct{})
	go func() {
		exported <- c.Export(t.Context(), "data", schema.ExportSpec{Kind: schema.ExportNBD, Path: "/run/x"}, func(string) { close(ready) })
	}()
	<-ready
	cancel()
	if _, err := l.Next(); err == nil || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("the stream: %v", err)
	}
	if err := <-exported; model.CodeOf(err) != model.Unavailable {
		t.Errorf("the export: %v", err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("Run does not end")
	}
	if _, err := (&net.Dialer{}).DialContext(t.Context(), "unix", config.Socket); err == nil {
		t.Error("the socket is still there")
	}
}
