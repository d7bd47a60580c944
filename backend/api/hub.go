package api

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/metrics"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/must"
)

const (
	// maxSubscribers bounds the clients of one node's live stream.
	maxSubscribers = 256

	// maxEvents bounds what waits for one client; beyond it, one resync takes
	// the place of all.
	maxEvents = 64

	// eventPause gathers changes that come in a burst into one event.
	eventPause = 100 * time.Millisecond
)

// A hub makes each frame once and gives it to everybody who subscribed.
type hub struct {
	server *Server

	// wanted has a value when the set of subscriptions changed.
	wanted chan struct{}

	// mu guards the fields below; nothing blocks under it.
	mu   sync.Mutex
	subs map[*subscriber]struct{}
	seq  map[schema.Topic]uint64
}

func newHub(s *Server) *hub {
	return &hub{
		server: s, wanted: make(chan struct{}, 1),
		subs: map[*subscriber]struct{}{}, seq: map[schema.Topic]uint64{},
	}
}

func (h *hub) room() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.subs) < maxSubscribers
}

func (h *hub) join(l *subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subs[l] = struct{}{}
}

func (h *hub) leave(l *subscriber) {
	h.mu.Lock()
	delete(h.subs, l)
	h.mu.Unlock()
	h.changed()
}

func (h *hub) changed() {
	select {
	case h.wanted <- struct{}{}:
	default:
	}
}

// subscribers are those who want a topic.
func (h *hub) subscribers(t schema.Topic) (who []*subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for l := range h.subs {
		if l.wants(t) {
			who = append(who, l)
		}
	}
	return who
}

// run feeds the subscribers until ctx ends.
func (h *hub) run(ctx context.Context) {
	var parts sync.WaitGroup
	parts.Go(func() { h.followMetrics(ctx) })
	parts.Go(func() { h.followRecord(ctx) })
	parts.Wait()
}

var metricTopics = []schema.Topic{schema.TopicCluster, schema.TopicNodes, schema.TopicDisks, schema.TopicVMs}

// followMetrics watches the metrics only while somebody wants a topic of them.
func (h *hub) followMetrics(ctx context.Context) {
	var watch *metrics.Watch
	var tick <-chan struct{}
	end := func() {
		if watch != nil {
			watch.Close()
			watch, tick = nil, nil
		}
	}
	defer end()
	for {
		select {
		case <-h.wanted:
			wanted := slices.ContainsFunc(metricTopics, func(t schema.Topic) bool {
				return len(h.subscribers(t)) > 0
			})
			if !wanted {
				end()
			} else if watch == nil {
				watch = h.server.Metrics.Watch()
				tick = watch.C()
			}
		case <-tick:
			for _, t := range metricTopics {
				h.publish(t)
			}
		case <-ctx.Done():
			return
		}
	}
}

// publish gives one topic's newest frame to those who want it.
func (h *hub) publish(t schema.Topic) {
	who := h.subscribers(t)
	if len(who) == 0 {
		return
	}
	h.mu.Lock()
	h.seq[t]++
	seq := h.seq[t]
	h.mu.Unlock()
	p := encode(frameOf(t, seq, h.server.Metrics.Frame(metrics.Topic(t))))
	for _, l := range who {
		l.offer(t, p)
	}
}

// encode cannot fail: frames hold numbers and text, and no NaN.
func encode(v any) []byte {
	p, err := json.Marshal(v)
	must.That(err == nil, "a frame is not JSON: %v", err)
	return p
}

// shown are the nouns whose changes clients hear of. Users and sessions only make
// open streams look at their session again.
var shown = []state.Noun{state.Cluster, state.Nodes, state.Disks, state.Volumes, state.VMs, state.Tokens, state.Networks}

// followRecord turns changes of the record, and nodes that come and go, into
// events.
func (h *hub) followRecord(ctx context.Context) {
	view := h.server.Record.Local()
	alive := h.alive(ctx)
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		var objects []string
		select {
		case <-view.Next():
			pause := time.NewTimer(eventPause)
			select {
			case <-pause.C:
			case <-ctx.Done():
				pause.Stop()
				return
			}
			now := h.server.Record.Local()
			objects = changedNouns(view, now)
			if now.Changed(state.Sessions) != view.Changed(state.Sessions) ||
				now.Changed(state.Users) != view.Changed(state.Users) {
				h.suspectAll()
			}
			view = now
		case <-look.C:
			if now := h.alive(ctx); now != alive {
				alive = now
				objects = []string{"cluster", "nodes", "disks", "volumes", "vms"}
			}
		case <-ctx.Done():
			return
		}
		if len(objects) > 0 {
			h.event(objects)
		}
	}
}

func changedNouns(before, now *state.View) (objects []string) {
	for _, n := range shown {
		if before.Changed(n) != now.Changed(n) {
			objects = append(objects, string(n))
		}
	}
	return objects
}

// alive sums up who is up and who leads; two equal sums mean nothing changed.
func (h *hub) alive(ctx context.Context) string {
	leader, quorum := h.server.Service.Leader()
	var up []model.NodeID
	for id, r := range h.server.Service.Nodes(ctx) {
		if r.Up {
			up = append(up, id)
		}
	}
	slices.Sort(up)
	return fmt.Sprint(leader, quorum, up)
}

func (h *hub) event(objects []string) {
	for _, l := range h.subscribers(schema.TopicEvents) {
		l.notify(objects)
	}
}

func (h *hub) suspectAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for l := range h.subs {
		l.suspect()
	}
}

// A subscriber is one client and what waits to be sent to it.
type subscriber struct {
	server *Server
	hub    *hub
	call   call
	out    sender

	ready chan struct{} // has a value when something waits
	doubt chan struct{} // has a value when the session is to be looked at

	// mu guards the fields below; nothing blocks under it.
	mu      sync.Mutex
	topics  map[schema.Topic]bool
	frames  map[schema.Topic][]byte // the newest of each topic: older ones are dropped
	events  [][]string
	resync  bool
	eventNo uint64
}

func newListener(s *Server, conn *websocket.Conn, c call) *subscriber {
	return &subscriber{
		server: s, hub: s.live, call: c, out: sender{conn: conn},
		ready: make(chan struct{}, 1), doubt: make(chan struct{}, 1),
		topics: map[schema.Topic]bool{}, frames: map[schema.Topic][]byte{},
	}
}

func (l *subscriber) wants(t schema.Topic) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.topics[t]
}

func (l *subscriber) subscribe(t schema.Topic, on bool) {
	l.mu.Lock()
	l.topics[t] = on
	if !on {
		delete(l.frames, t)
	}
	l.mu.Unlock()
	l.hub.changed()
}

// offer queues a metrics frame in the place of an older one of its topic.
func (l *subscriber) offer(t schema.Topic, p []byte) {
	l.mu.Lock()
	l.frames[t] = p
	l.mu.Unlock()
	l.wake()
}

// notify queues an event. A client for which too many wait is told to look at
// everything instead, so that none is ever missed.
func (l *subscriber) notify(objects []string) {
	l.mu.Lock()
	switch {
	case l.resync:
	case len(l.events) >= maxEvents:
		l.events, l.resync = nil, true
	default:
		l.events = append(l.events, objects)
	}
	l.mu.Unlock()
	l.wake()
}

func (l *subscriber) wake() {
	select {
	case l.ready <- struct{}{}:
	default:
	}
}

func (l *subscriber) suspect() {
	select {
	case l.doubt <- struct{}{}:
	default:
	}
}

// next takes what waits, events first.
func (l *subscriber) next() ([]byte, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.resync || len(l.events) > 0 {
		l.eventNo++
		e := schema.EventFrame{Topic: schema.TopicEvents, Seq: l.eventNo, T: time.Now().UnixMilli()}
		if l.resync {
			e.Kind, l.resync = schema.EventResync, false
		} else {
			e.Kind, e.Objects = schema.EventChanged, l.events[0]
			l.events = l.events[1:]
		}
		return encode(e), true
	}
	for t, p := range l.frames {
		delete(l.frames, t)
		return p, true
	}
	return nil, false
}
