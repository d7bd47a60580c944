package meta

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"drystone.example/drystone/backend/model"
)

// Leases have a protocol of their own, so that no queue of calls can make a node
// lose its lease. A node keeps one connection to the leader. It sends its number
// of the question, uint64; the answer is that number, a byte, and the index of
// the entry the node's view must contain, uint64. Integers are big-endian.
const (
	leaseProto = "lease"

	leaseGranted = 0
	leaseRefused = 1 // not now, or not by this node
	leaseDenied  = 2 // not a member

	leaseIdle = time.Minute // how long the leader keeps a connection that is silent
)

// serveLeases answers one node's questions.
func (m *Record) serveLeases(ctx context.Context, peer model.NodeID, conn net.Conn) {
	for ctx.Err() == nil {
		if err := m.serveLease(ctx, peer, conn); err != nil {
			return
		}
	}
}

func (m *Record) serveLease(ctx context.Context, peer model.NodeID, conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(leaseIdle)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	question := make([]byte, 8)
	if _, err := io.ReadFull(conn, question); err != nil {
		return fmt.Errorf("read a question: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, LeaseRenew)
	defer cancel()
	index, err := m.grant(ctx, peer)
	status := byte(leaseGranted)
	switch {
	case model.CodeOf(err) == model.Denied:
		status = leaseDenied
	case err != nil:
		status = leaseRefused
	}
	if _, err := conn.Write(binary.BigEndian.AppendUint64(append(question, status), index)); err != nil {
		return fmt.Errorf("write an answer: %w", err)
	}
	return nil
}

// A leaseAsker is a node's end of the protocol. One goroutine uses it.
type leaseAsker struct {
	m      *Record
	conn   net.Conn // nil: none
	leader model.NodeID
	number uint64
}

// ask asks the leader once. A connection that did not answer in order is not
// used again.
func (a *leaseAsker) ask(ctx context.Context, leader model.NodeID) (uint64, error) {
	if leader == a.m.cfg.Self {
		return a.m.grant(ctx, leader)
	}
	if a.leader != leader {
		a.close()
	}
	if a.conn == nil {
		conn, err := a.m.cfg.Wire.Dial(ctx, leader, leaseProto)
		if err != nil {
			return 0, err
		}
		a.conn, a.leader = conn, leader
	}
	status, index, err := a.exchange(ctx)
	switch {
	case err != nil:
		a.close()
		return 0, fmt.Errorf("ask for the lease: %w", err)
	case status == leaseGranted:
		return index, nil
	case status == leaseDenied:
		return 0, model.Errorf(model.Denied, "this node is not a member of the cluster")
	default:
		return 0, model.Errorf(model.Unavailable, "the leader gives no lease now")
	}
}

func (a *leaseAsker) exchange(ctx context.Context) (status byte, index uint64, err error) {
	conn := a.conn // the function below may run when a has another one
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := a.conn.SetDeadline(time.Now().Add(LeaseRenew)); err != nil {
		return 0, 0, fmt.Errorf("set deadline: %w", err)
	}
	a.number++
	if _, err := a.conn.Write(binary.BigEndian.AppendUint64(nil, a.number)); err != nil {
		return 0, 0, fmt.Errorf("write the question: %w", err)
	}
	answer := make([]byte, 8+1+8)
	if _, err := io.ReadFull(a.conn, answer); err != nil {
		return 0, 0, fmt.Errorf("read the answer: %w", err)
	}
	if got := binary.BigEndian.Uint64(answer); got != a.number {
		return 0, 0, fmt.Errorf("answer %d to question %d", got, a.number)
	}
	return answer[8], binary.BigEndian.Uint64(answer[9:]), nil
}

func (a *leaseAsker) close() {
	if a.conn != nil {
		_ = a.conn.Close()
		a.conn = nil
	}
}
