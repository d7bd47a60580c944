package agent

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

// Snapshots are read from another node by a stream of its own, one request after
// the other on each connection (docs/WIRE.md).

const (
	snapshotProto = "snapshot"
	volumeProto   = "volume" // the same, of a volume as it is

	readsAsked   = 24        // by all readers of this node at once; more of them wait
	readsIdle    = 16        // connections that are kept for their next reads
	readsServed  = 32        // for all other nodes at once; more of them wait
	readMost     = 4 << 20   // bytes of one read
	readErrorMax = 4 << 10   // bytes of an error
	readRequest  = 8 + 8 + 4 // bytes: snapshot or volume, offset, length
	readIdleMost = time.Minute
	readIdleTime = 2 * time.Minute // of the other side
	readSendTime = 30 * time.Second
)

// reads bounds the reads of snapshots that go between nodes.
type reads struct {
	served, asked chan struct{} // each has an element for each read under way

	mu   sync.Mutex // guards idle; nothing blocks under it
	idle []peerConn // the one used last is the last
}

func newReads() *reads {
	return &reads{served: make(chan struct{}, readsServed), asked: make(chan struct{}, readsAsked)}
}

// A peerConn is a connection for reads, to whom, and when it was used last.
type peerConn struct {
	net.Conn
	node  model.NodeID
	proto string
	used  time.Time
}

// take returns a connection to a node that is idle, or none.
func (r *reads) take(node model.NodeID, proto string) (conn peerConn, found bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.idle) - 1; i >= 0; i-- {
		if conn := r.idle[i]; conn.node == node && conn.proto == proto && time.Since(conn.used) < readIdleMost {
			r.idle = slices.Delete(r.idle, i, i+1)
			return conn, true
		}
	}
	return peerConn{}, false
}

// keep keeps a connection for later reads, instead of the one that was idle longest if
// there are too many.
func (r *reads) keep(conn peerConn) {
	conn.used = time.Now()
	r.mu.Lock()
	r.idle = append(r.idle, conn)
	var old peerConn
	if len(r.idle) > readsIdle {
		old, r.idle = r.idle[0], slices.Delete(r.idle, 0, 1)
	}
	r.mu.Unlock()
	if old.Conn != nil {
		_ = old.Close()
	}
}

// A readError is an error as it crosses.
type readError struct {
	Code model.Code `json:"code"`
	Text string     `json:"text"`
}

// serveReads answers another node's reads of snapshots of the volumes held here.
func (a *Agent) serveReads(ctx context.Context, peer model.NodeID, conn net.Conn) {
	a.serveReadsOf(ctx, peer, conn, func(ctx context.Context, id uint64, p []byte, off int64) error {
		return a.readHere(ctx, model.SnapshotID(id), p, off)
	})
}

// serveVolumeReads answers another node's reads of the volumes held here.
func (a *Agent) serveVolumeReads(ctx context.Context, peer model.NodeID, conn net.Conn) {
	a.serveReadsOf(ctx, peer, conn, func(ctx context.Context, id uint64, p []byte, off int64) error {
		return a.readVolumeHere(ctx, model.VolumeID(id), p, off)
	})
}

// A readFunc reads from what has an identifier.
type readFunc func(ctx context.Context, id uint64, p []byte, off int64) error

func (a *Agent) serveReadsOf(ctx context.Context, peer model.NodeID, conn net.Conn, read readFunc) {
	defer conn.Close()
	for {
		err := a.serveRead(ctx, conn, read)
		switch {
		case errors.Is(err, io.EOF):
			return
		case err != nil:
			a.log.Debug("snapshot is not read any more", "node", peer, "err", err)
			return
		}
	}
}

// serveRead reads and answers one request. Its error is one of the connection.
func (a *Agent) serveRead(ctx context.Context, conn net.Conn, read readFunc) error {
	if err := conn.SetReadDeadline(time.Now().Add(readIdleTime)); err != nil {
		return err
	}
	var head [readRequest]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return err
	}
	id := binary.LittleEndian.Uint64(head[:])
	off, n := int64(binary.LittleEndian.Uint64(head[8:])), binary.LittleEndian.Uint32(head[16:])
	if n == 0 || n > readMost {
		return model.Errorf(model.Invalid, "a read of %d bytes", n)
	}
	select {
	case a.reads.served <- struct{}{}:
		defer func() { <-a.reads.served }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, readPatience)
	defer cancel()
	b := iobuf.Get(int(n))
	defer b.Release()
	failed := read(ctx, id, b.Bytes, off)
	if err := conn.SetWriteDeadline(time.Now().Add(readSendTime)); err != nil {
		return err
	}
	if failed == nil {
		bufs := net.Buffers{make([]byte, 4), b.Bytes}
		_, err := bufs.WriteTo(conn)
		return err
	}
	text, err := json.Marshal(readErrorOf(failed))
	if err != nil {
		return err
	}
	_, err = conn.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(text))), text...))
	return err
}

// readErrorOf is what may be told of an error to another node.
func readErrorOf(err error) readError {
	coded, ok := errors.AsType[*model.Error](err)
	if !ok {
		return readError{model.Unavailable, "the read was broken off"}
	}
	return readError{coded.Code, coded.Text[:min(len(coded.Text), readErrorMax/8)]}
}

// readFrom reads from the snapshot through another node.
func (r *reader) readFrom(ctx context.Context, node model.NodeID, p []byte, off int64) error {
	for len(p) > 0 {
		n := min(len(p), readMost)
		if err := r.readOnce(ctx, node, p[:n], off); err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func (r *reader) readOnce(ctx context.Context, node model.NodeID, p []byte, off int64) error {
	all := r.agent.reads
	select {
	case all.asked <- struct{}{}:
		defer func() { <-all.asked }()
	case <-ctx.Done():
		return ctx.Err()
	}
	proto, id := snapshotProto, uint64(r.snap)
	if r.snap == 0 {
		proto, id = volumeProto, uint64(r.volume)
	}
	conn, found := all.take(node, proto)
	if !found {
		dialled, err := r.agent.cfg.Wire.Dial(ctx, node, proto)
		if err != nil {
			return fmt.Errorf("reach the holder: %w", err)
		}
		conn = peerConn{Conn: dialled, node: node, proto: proto}
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	told, err := ask(conn, id, p, off)
	if !stop() || err != nil {
		_ = conn.Close()
	} else {
		all.keep(conn)
	}
	if err != nil {
		return model.Errorf(model.Unavailable, "read a snapshot from node %s: %w", node, err)
	}
	return told
}

// ask makes one request. told is what the other side says of it, err what is wrong
// with the connection.
func ask(conn net.Conn, id uint64, p []byte, off int64) (told, err error) {
	head := binary.LittleEndian.AppendUint64(nil, id)
	head = binary.LittleEndian.AppendUint64(head, uint64(off))
	head = binary.LittleEndian.AppendUint32(head, uint32(len(p)))
	if _, err := conn.Write(head); err != nil {
		return nil, err
	}
	var status [4]byte
	if _, err := io.ReadFull(conn, status[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(status[:])
	if n == 0 {
		_, err := io.ReadFull(conn, p)
		return nil, err
	}
	if n > readErrorMax {
		return nil, model.Errorf(model.Invalid, "an error of %d bytes", n)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(conn, text); err != nil {
		return nil, err
	}
	var failed readError
	if err := json.Unmarshal(text, &failed); err != nil {
		return nil, err
	}
	if failed.Code == "" {
		failed.Code = model.Internal
	}
	return &model.Error{Code: failed.Code, Text: failed.Text}, nil
}
