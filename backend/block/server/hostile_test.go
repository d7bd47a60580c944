package server_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/server"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/wire"
	"drystone.example/drystone/backend/wire/wiretest"
)

const (
	kindApply = 1
	kindRead  = 3
)

// greeted is a bare connection after the hellos.
func (r *rig) greeted(instance uint64) net.Conn {
	r.tb.Helper()
	conn := r.raw()
	if _, err := conn.Write(server.HelloBytes(1, 1, instance)); err != nil {
		r.tb.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, server.HelloSize())); err != nil {
		r.tb.Fatal(err)
	}
	return conn
}

func drop(conn net.Conn) { _ = conn.Close() }

// isCut reports whether the other side ends the connection, and not in silence.
func isCut(t *testing.T, conn net.Conn) bool {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(8 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(io.Discard, conn)
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

func writeOp(number uint64) *disk.Op {
	return &disk.Op{Kind: disk.Write, Volume: 1, Generation: 1, Number: number, Prev: number - 1, Count: 1, Sums: []uint32{1}}
}

// A client that breaks the rules loses its connection; the disk sees nothing of
// it and others go on.
func TestHostileClient(t *testing.T) {
	r := newRig(t, nil, server.Config{})
	d := newMemDisk(t)
	r.server.Add(5, d)
	good := server.FrameBytes(kindApply, 0, 1, 5, server.OpBytes(writeOp(1)), make([]byte, 4096))
	with := func(change func(b []byte)) []byte {
		b := bytes.Clone(good)
		change(b)
		return b
	}
	_, maxData, _ := server.Limits()
	for name, sent := range map[string][]byte{
		"zeros":            make([]byte, 100),
		"flipped header":   with(func(b []byte) { b[9] ^= 1 }),
		"flipped meta":     with(func(b []byte) { b[server.HeaderSize()+3] ^= 1 }),
		"endless meta":     with(func(b []byte) { binary.LittleEndian.PutUint32(b, 1<<31) }),
		"endless data":     with(func(b []byte) { binary.LittleEndian.PutUint32(b[4:], 1<<31) }),
		"too much data":    server.FrameBytes(kindApply, 0, 1, 5, server.OpBytes(writeOp(1)), make([]byte, maxData+1))[:5000],
		"data unasked":     server.FrameBytes(kindRead, 0, 1, 5, server.ReadBytes(disk.Read{Volume: 1, Count: 1}), make([]byte, 10)),
		"read of nothing":  server.FrameBytes(kindRead, 0, 1, 5, server.ReadBytes(disk.Read{Volume: 1}), nil),
		"read of too much": server.FrameBytes(kindRead, 0, 1, 5, server.ReadBytes(disk.Read{Volume: 1, Count: 1 << 20}), nil),
		"unknown kind":     server.FrameBytes(99, 0, 1, 5, nil, nil),
		"an answer":        server.FrameBytes(server.Answer(kindApply), 0, 1, 5, nil, nil),
		"a status":         server.FrameBytes(kindApply, 7, 1, 5, server.OpBytes(writeOp(1)), make([]byte, 4096)),
		"count and data differ": server.FrameBytes(kindApply, 0, 1, 5, server.OpBytes(&disk.Op{
			Kind: disk.Write, Volume: 1, Number: 1, Count: 2, Sums: []uint32{1, 2},
		}), make([]byte, 4096)),
		"block beyond the end": server.FrameBytes(kindApply, 0, 1, 5, server.OpBytes(&disk.Op{
			Kind: disk.Discard, Volume: 1, Number: 1, Block: 1 << 36, Count: 1,
		}), nil),
		"number not after prev": server.FrameBytes(kindApply, 0, 1, 5, server.OpBytes(&disk.Op{
			Kind: disk.Mark, Volume: 1, Number: 5, Prev: 5,
		}), nil),
		"no volume": server.FrameBytes(kindApply, 0, 1, 5, server.OpBytes(&disk.Op{Kind: disk.Mark, Number: 1}), nil),
	} {
		t.Run(name, func(t *testing.T) {
			conn := r.greeted(77)
			defer drop(conn)
			if _, err := conn.Write(sent); err != nil {
				t.Fatal(err)
			}
			if !isCut(t, conn) {
				t.Error("the connection stays")
			}
		})
	}
	d.mu.Lock()
	if len(d.applied) != 0 {
		t.Errorf("ops %v were applied", d.applied)
	}
	d.mu.Unlock()
	data, sums := payload(1, 1)
	if err := apply(r.client.Disk(store, 5), (&writes{volume: 1}).next(1, data, sums)); err != nil {
		t.Errorf("another client: %v", err)
	}
}

// A greeting that is none, or of versions we do not speak.
func TestHostileGreeting(t *testing.T) {
	r := newRig(t, nil, server.Config{})
	for name, hello := range map[string][]byte{
		"not a hello":    []byte("GET / HTTP/1.0\r\n\r\n    "),
		"future version": server.HelloBytes(2, 9, 1),
	} {
		t.Run(name, func(t *testing.T) {
			conn := r.raw()
			defer drop(conn)
			if _, err := conn.Write(hello); err != nil {
				t.Fatal(err)
			}
			if !isCut(t, conn) {
				t.Error("the connection stays")
			}
		})
	}
}

// A connection cut at every place of a frame: nothing of that frame is applied.
func TestCutMidFrame(t *testing.T) {
	r := newRig(t, nil, server.Config{})
	d := newMemDisk(t)
	r.server.Add(5, d)
	whole := server.FrameBytes(kindApply, 0, 1, 5, server.OpBytes(writeOp(1)), make([]byte, 4096))
	for n := 1; n < len(whole); n += 97 {
		conn := r.greeted(1)
		if _, err := conn.Write(whole[:n]); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
	}
	data, sums := payload(1, 1)
	if err := apply(r.client.Disk(store, 5), (&writes{volume: 2}).next(1, data, sums)); err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.applied) != 1 {
		t.Errorf("%d ops applied, want 1", len(d.applied))
	}
}

// A client that sends more than its window, or that reads no answers, is cut, and
// what it can make the server hold is bounded.
func TestClientOverTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, wiretest.NewNet(), server.Config{})
		d := newMemDisk(t)
		r.server.Add(5, d)
		d.hold(true)
		_, _, window := server.Limits()
		conn := r.greeted(1)
		for i := range uint64(window) {
			op := server.OpBytes(&disk.Op{Kind: disk.Mark, Volume: 1, Number: i + 1, Prev: i})
			if _, err := conn.Write(server.FrameBytes(kindApply, 0, i+1, 5, op, nil)); err != nil {
				t.Fatalf("op %d of the window: %v", i, err)
			}
		}
		synctest.Wait()
		op := server.OpBytes(&disk.Op{Kind: disk.Mark, Volume: 1, Number: 1e6, Prev: 1})
		if _, err := conn.Write(server.FrameBytes(kindApply, 0, 1e6, 5, op, nil)); err != nil {
			t.Fatal(err)
		}
		if !isCut(t, conn) {
			t.Error("a client over its window stays")
		}
		d.hold(false)
	})
}

func TestClientThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, wiretest.NewNet(), server.Config{})
		r.server.Add(5, newMemDisk(t))
		conn := r.greeted(1)
		begin := time.Now()
		var err error
		for i := uint64(1); err == nil && i < 1e5; i++ {
			q := server.ReadBytes(disk.Read{Volume: 1, Count: 256})
			_, err = conn.Write(server.FrameBytes(kindRead, 0, i, 5, q, nil))
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(begin); err == nil || took > 15*time.Second {
			t.Errorf("a client that reads nothing is cut after %v (%v)", took, err)
		}
	})
}

// Only the newest connection of a client counts: what an older one still brings
// is not applied.
func TestNewerConnectionSupersedes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, wiretest.NewNet(), server.Config{})
		d := newMemDisk(t)
		r.server.Add(5, d)
		old, other := r.greeted(1), r.greeted(2)
		defer drop(other)
		renewed := r.greeted(1)
		defer drop(renewed)
		if !isCut(t, old) {
			t.Error("the older connection stays")
		}
		for i, conn := range []net.Conn{other, renewed} {
			op := &disk.Op{Kind: disk.Mark, Volume: model.VolumeID(i + 1), Number: 1}
			if _, err := conn.Write(server.FrameBytes(kindApply, 0, 1, 5, server.OpBytes(op), nil)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(conn, make([]byte, server.HeaderSize())); err != nil {
				t.Errorf("connection %d: %v", i, err)
			}
		}
	})
}

// Whatever a server answers, the client ends each call in bounded time with an
// error and touches nothing it should not.
func TestHostileServer(t *testing.T) {
	op := writeOp(1)
	for name, answers := range map[string]func(req []byte) []byte{
		"nothing":       func([]byte) []byte { return nil },
		"zeros":         func([]byte) []byte { return make([]byte, 64) },
		"a request":     func(req []byte) []byte { return req },
		"unknown id":    func([]byte) []byte { return server.FrameBytes(server.Answer(kindApply), 0, 999, 5, nil, nil) },
		"another kind":  func([]byte) []byte { return server.FrameBytes(server.Answer(kindRead), 0, 1, 5, nil, nil) },
		"another disk":  func([]byte) []byte { return server.FrameBytes(server.Answer(kindApply), 0, 1, 6, nil, nil) },
		"data unasked":  func([]byte) []byte { return server.FrameBytes(server.Answer(kindApply), 0, 1, 5, nil, make([]byte, 9)) },
		"meta unasked":  func([]byte) []byte { return server.FrameBytes(server.Answer(kindApply), 0, 1, 5, make([]byte, 9), nil) },
		"error cut off": func([]byte) []byte { return server.FrameBytes(server.Answer(kindApply), 6, 1, 5, []byte{200}, nil) },
		"many blocks": func([]byte) []byte {
			return server.FrameBytes(server.Answer(kindApply), 11, 1, 5, append(make([]byte, 14), 255, 255, 255, 255), nil)
		},
		"half an answer": func([]byte) []byte { return server.FrameBytes(server.Answer(kindApply), 0, 1, 5, nil, nil)[:20] },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, wiretest.NewNet(), server.Config{})
				r.serveInstead(func(conn net.Conn, req []byte) {
					_, _ = conn.Write(answers(req))
				})
				data, sums := payload(1, 1)
				op := *op
				op.Data, op.Sums = data, sums
				begin := time.Now()
				err := apply(r.client.Disk(store, 5), &op)
				if model.CodeOf(err) != model.Unavailable || time.Since(begin) > 4*time.Second {
					t.Errorf("Apply: %v after %v", err, time.Since(begin))
				}
			})
		})
	}
}

// The wrong amount of data in an answer to a read.
func TestHostileServerRead(t *testing.T) {
	for name, answer := range map[string][]byte{
		"too little": server.FrameBytes(server.Answer(kindRead), 0, 1, 5, make([]byte, 8), make([]byte, 4096)),
		"too much":   server.FrameBytes(server.Answer(kindRead), 0, 1, 5, make([]byte, 8), make([]byte, 3*4096)),
		"sums":       server.FrameBytes(server.Answer(kindRead), 0, 1, 5, make([]byte, 12), make([]byte, 2*4096)),
		"stalls":     server.FrameBytes(server.Answer(kindRead), 0, 1, 5, make([]byte, 8), make([]byte, 2*4096))[:5000],
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, wiretest.NewNet(), server.Config{})
				r.serveInstead(func(conn net.Conn, _ []byte) { _, _ = conn.Write(answer) })
				begin := time.Now()
				dst := make([]byte, 3*4096)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				err := r.client.Disk(store, 5).Read(ctx, disk.Read{Volume: 1, Count: 2}, dst[:2*4096], make([]uint32, 2))
				if model.CodeOf(err) != model.Unavailable || time.Since(begin) > 4*time.Second {
					t.Errorf("Read: %v after %v", err, time.Since(begin))
				}
			})
		})
	}
}

// serveInstead puts a bare server in place of the rig's: it greets, and then calls
// f with the beginning of each request.
func (r *rig) serveInstead(f func(conn net.Conn, req []byte)) {
	r.tb.Helper()
	r.halt()
	tr := r.transport(store, "", "store:7420", "store")
	tr.Serve(server.Proto, func(_ context.Context, _ model.NodeID, conn net.Conn) {
		hello := make([]byte, server.HelloSize())
		if _, err := io.ReadFull(conn, hello); err != nil {
			return
		}
		_, _ = conn.Write(hello)
		b := make([]byte, 16<<10)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			f(conn, b[:n])
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = tr.Run(ctx) }()
	r.halt = func() { cancel(); <-done }
	synctest.Wait()
}

// A removed node's connection ends and it gets no other.
func TestRemovedNode(t *testing.T) {
	n := wiretest.NewNet()
	synctest.Test(t, func(t *testing.T) {
		n = wiretest.NewNet()
		r := newRig(t, n, server.Config{})
		r.server.Add(5, newMemDisk(t))
		remote := r.client.Disk(store, 5)
		data, sums := payload(1, 1)
		w := &writes{volume: 1}
		if err := apply(remote, w.next(1, data, sums)); err != nil {
			t.Fatal(err)
		}
		r.mu.Lock()
		r.removed[store] = true
		r.mu.Unlock()
		r.wire.Drop(store)
		synctest.Wait()
		if err := apply(remote, w.next(1, data, sums)); model.CodeOf(err) != model.Denied {
			t.Errorf("Apply to a removed node: %v; want denied", err)
		}
		r.client.Forget(store)
	})
}

var _ server.Dialer = (*wire.Transport)(nil)
