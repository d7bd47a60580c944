package api

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/time/rate"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/auth"
	"drystone.example/drystone/backend/metrics"
	"drystone.example/drystone/backend/model"
)

const (
	liveProtocol = "drystone.v1"
	liveLimit    = 64 << 10 // bytes of a client's message
)

// kindOf is what must be viewed for a topic.
func kindOf(t schema.Topic) (auth.Kind, bool) {
	switch t {
	case schema.TopicCluster, schema.TopicEvents:
		return auth.Cluster, true
	case schema.TopicNodes:
		return auth.Node, true
	case schema.TopicDisks:
		return auth.Disk, true
	case schema.TopicVMs:
		return auth.VM, true
	}
	return "", false
}

// serveLive is one client of the live stream.
func (s *Server) serveLive(w http.ResponseWriter, req *http.Request) error {
	if !s.live.room() {
		return model.Errorf(model.Unavailable, "too many pages follow this node; use another one")
	}
	ctx, leave := s.lasting(context.WithoutCancel(req.Context()))
	defer leave()
	conn, err := s.upgrade(w, req, liveProtocol, liveLimit)
	if err != nil {
		return err
	}
	defer letGo(conn)
	l := newListener(s, conn, callOf(ctx))
	return l.run(ctx)
}

// run follows the client until either side ends it. The reader runs beside and
// ends when the connection is closed, at the latest.
func (l *subscriber) run(ctx context.Context) error {
	if err := keepAlive(l.out.conn); err != nil {
		return err
	}
	l.hub.join(l)
	defer l.hub.leave(l)
	var reader sync.WaitGroup
	read := make(chan error, 1)
	reader.Go(func() { read <- l.read() })

	err := l.write(ctx, read)
	err = errors.Join(err, l.out.end(err), l.out.conn.Close())
	reader.Wait()
	return err
}

var errClientLeft = errors.New("the client left")

// write sends what is queued, pings, and looks at the session again.
func (l *subscriber) write(ctx context.Context, read <-chan error) error {
	ping, check := time.NewTicker(pingEvery), time.NewTicker(recheck)
	defer ping.Stop()
	defer check.Stop()
	for {
		select {
		case <-l.ready:
			for {
				p, ok := l.next()
				if !ok {
					break
				}
				if err := l.out.send(websocket.TextMessage, p); err != nil {
					return err
				}
			}
		case <-ping.C:
			if err := l.out.ping(); err != nil {
				return err
			}
		case <-check.C:
			l.suspect()
		case <-l.doubt:
			if !l.server.stillGood(l.call, auth.View, auth.Metrics) {
				return errSessionEnded
			}
		case err := <-read:
			return errors.Join(errClientLeft, err)
		case <-ctx.Done():
			return errStopping
		}
	}
}

// read takes the client's wishes, a bounded number a second.
func (l *subscriber) read() error {
	turns := rate.NewLimiter(20, 50)
	for {
		kind, p, err := l.out.conn.ReadMessage()
		if err != nil {
			return err //nolint:wrapcheck // the connection is gone
		}
		if kind != websocket.TextMessage || !turns.Allow() {
			return model.Errorf(model.Invalid, "too many messages, or not of text")
		}
		var wish schema.LiveRequest
		if err := json.Unmarshal(p, &wish); err != nil {
			return model.Errorf(model.Invalid, "the message is not valid JSON")
		}
		kindOfTopic, ok := kindOf(wish.Topic)
		if !ok {
			return model.Errorf(model.Invalid, "there is no topic %.20q", wish.Topic)
		}
		if err := auth.Allow(l.call.Subject, auth.View, auth.Object{Kind: kindOfTopic}); err != nil {
			return err
		}
		switch wish.Op {
		case "subscribe":
			l.subscribe(wish.Topic, true)
		case "unsubscribe":
			l.subscribe(wish.Topic, false)
		default:
			return model.Errorf(model.Invalid, "there is no operation %.20q", wish.Op)
		}
	}
}

// frameOf is a topic's newest second on the wire.
func frameOf(topic schema.Topic, seq uint64, f metrics.Frame) schema.MetricsFrame {
	return schema.MetricsFrame{Topic: topic, Seq: seq, T: f.At, IDs: f.IDs, V: f.Columns, Age: f.Age}
}

// historyOf is a topic's past on the wire, where what is not a number is null.
func historyOf(topic schema.Topic, h metrics.History) schema.History {
	o := schema.History{Topic: topic, IDs: h.IDs, T: h.T, Series: make(map[string][][]*float64, len(h.Series))}
	for name, table := range h.Series {
		rows := make([][]*float64, len(table))
		for i, values := range table {
			rows[i] = make([]*float64, len(values))
			for j := range values {
				if !math.IsNaN(values[j]) {
					rows[i][j] = &values[j]
				}
			}
		}
		o.Series[name] = rows
	}
	return o
}

type vmHistoryInput struct {
	Ref     string `path:"ref" minLength:"1" maxLength:"63"`
	Seconds int64  `query:"seconds" minimum:"1" maximum:"63072000" default:"3600" doc:"how far back"`
	Step    int64  `query:"step" minimum:"0" maximum:"63072000" default:"0" doc:"seconds of each mean, at least; 0: as suits a chart. The last hour is kept in seconds, a day in steps of 10 s, 30 days in minutes, two years in hours; the answer says its step"`
}

func (s *Server) getVMHistory(ctx context.Context, in *vmHistoryInput) (*out[schema.VMHistory], error) {
	view, err := s.Record.View(ctx)
	if err != nil {
		return nil, err
	}
	vm, err := view.FindVM(in.Ref)
	if err != nil {
		return nil, err
	}
	past, err := s.Metrics.Past(ctx, vm.ID, in.Seconds, in.Step)
	if err != nil {
		return nil, err //nolint:wrapcheck // it says enough
	}
	o := schema.VMHistory{
		ID: vm.ID, Step: past.Step, T: make([]int64, len(past.Points)), Series: map[string][]*float64{}, Missing: []string{},
	}
	for c, name := range past.Columns {
		column := make([]*float64, len(past.Points))
		for i, p := range past.Points {
			if p.Seconds > 0 {
				v := float64(p.Values[c])
				column[i] = &v
			}
		}
		o.Series[name] = column
	}
	for i, p := range past.Points {
		o.T[i] = p.At * 1000
	}
	for _, id := range past.Missing {
		if node, err := view.Node(id); err == nil {
			o.Missing = append(o.Missing, node.Name)
		}
	}
	return answer(o, nil)
}

// catchUp bounds how long the first look at the past waits for other nodes.
const catchUp = 2 * time.Second

func (s *Server) caughtUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	s.Metrics.Caught(ctx)
}
