package guard

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/must"
	"drystone.example/drystone/backend/proc"
)

// callWait bounds every call of a Client.
const callWait = 2 * time.Second

// A Client is the daemon's side. It connects when first used and again after the
// connection was lost, and then tells the guard, which may be another one,
// everything it had told before. It is safe for concurrent use. Every call is
// bounded to two seconds; what the guard did not answer has the code Unavailable.
type Client struct {
	socket string
	turn   chan struct{} // holds the token of whose turn it is to use the below

	line     *line // nil: not connected
	guests   map[model.VMID]proc.Guest
	deadline Boottime
	closed   bool
}

// NewClient makes a client; it does not connect yet.
func NewClient(socket string) *Client {
	return &Client{
		socket: socket, turn: make(chan struct{}, 1), guests: map[model.VMID]proc.Guest{},
	}
}

// Register puts a guest under guard. If the process is dead already that is no error.
func (c *Client) Register(ctx context.Context, g proc.Guest) error {
	_, err := c.do(ctx, request{Register: &g}, func() { c.guests[g.VM] = g })
	return err
}

// Forget takes a guest from under guard. A dead guest need not be forgotten.
func (c *Client) Forget(ctx context.Context, vm model.VMID) error {
	_, err := c.do(ctx, request{Forget: vm}, func() { delete(c.guests, vm) })
	return err
}

// Renew says until when the lease is good. A deadline before the last one changes
// nothing; one further ahead than MaxLease is Invalid.
func (c *Client) Renew(ctx context.Context, deadline Boottime) error {
	if deadline <= 0 {
		return model.Errorf(model.Invalid, "%d is no deadline", deadline)
	}
	_, err := c.do(ctx, request{Deadline: deadline}, func() {
		c.deadline = max(c.deadline, deadline)
	})
	return err
}

// Status asks the guard what it guards.
func (c *Client) Status(ctx context.Context) (Status, error) {
	resp, err := c.do(ctx, request{}, func() {})
	if err != nil {
		return Status{}, err
	}
	if resp.Status == nil {
		return Status{}, model.Errorf(model.Internal, "the guard's answer has no status")
	}
	return *resp.Status, nil
}

// Close ends the connection; the guard keeps what it knows.
func (c *Client) Close() error {
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	c.closed = true
	c.hangUp()
	return nil
}

// do asks one thing, and notes it if the guard agreed.
func (c *Client) do(ctx context.Context, req request, note func()) (response, error) {
	ctx, cancel := context.WithTimeout(ctx, callWait)
	defer cancel()
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return response{}, model.Errorf(model.Unavailable, "the guard does not answer: %w", ctx.Err())
	}
	if c.closed {
		return response{}, model.Errorf(model.Unavailable, "the guard's client is closed")
	}
	resp, err := c.try(ctx, req)
	if err != nil && ctx.Err() == nil { // it may have been replaced: once more
		resp, err = c.try(ctx, req)
	}
	if err != nil {
		return response{}, model.Errorf(model.Unavailable, "the guard does not answer: %w", err)
	}
	if resp.Code != "" {
		return response{}, model.Errorf(resp.Code, "guard: %s", resp.Text)
	}
	note()
	return resp, nil
}

// try connects if need be and asks. An error is about the connection, which is
// gone then.
func (c *Client) try(ctx context.Context, req request) (resp response, err error) {
	defer func() {
		if err != nil {
			c.hangUp()
		}
	}()
	if c.line == nil {
		if c.line, err = dial(ctx, c.socket); err != nil {
			return response{}, err
		}
		if err := c.retell(ctx); err != nil {
			return response{}, err
		}
	}
	return c.line.call(ctx, req)
}

// retell tells a guard that may be new what the last one knew: first how long
// they may live, then who.
func (c *Client) retell(ctx context.Context) error {
	if c.deadline != 0 {
		if _, err := c.line.call(ctx, request{Deadline: c.deadline}); err != nil {
			return err
		}
	}
	for vm, g := range c.guests {
		if !g.Alive() {
			delete(c.guests, vm)
			continue
		}
		if _, err := c.line.call(ctx, request{Register: &g}); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) hangUp() {
	if c.line != nil {
		c.line.close()
		c.line = nil
	}
}

// maxResponse bounds what a guard may say: a status with ten thousand guests.
const maxResponse = 1 << 20

// A line is one connection to a guard. After a failed call it is of no use.
type line struct {
	conn *net.UnixConn
	in   *bufio.Scanner
}

func dial(ctx context.Context, socket string) (*line, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("not a UNIX socket"), conn.Close())
	}
	l := &line{conn: uc, in: bufio.NewScanner(uc)}
	l.in.Buffer(nil, maxResponse)
	return l, nil
}

// peer is the process that listens at the other end.
func (l *line) peer() (int, error) {
	cred, err := credentials(l.conn)
	if err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

func (l *line) call(ctx context.Context, req request) (response, error) {
	b, err := json.Marshal(req)
	if err != nil {
		return response{}, fmt.Errorf("ask guard: %w", err)
	}
	if err := l.conn.SetDeadline(time.Time{}); err != nil {
		return response{}, fmt.Errorf("ask guard: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = l.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := l.conn.Write(append(b, '\n')); err != nil {
		return response{}, fmt.Errorf("ask guard: %w", err)
	}
	if !l.in.Scan() {
		return response{}, fmt.Errorf("hear guard: %w", errors.Join(l.in.Err(), ctx.Err(), errEnded))
	}
	var resp response
	if err := json.Unmarshal(l.in.Bytes(), &resp); err != nil {
		return response{}, fmt.Errorf("hear guard: %w", err)
	}
	return resp, nil
}

var errEnded = errors.New("the connection has ended")

func (l *line) close() { _ = l.conn.Close() }

// spawnWait bounds how long a new guard may take until it answers.
const spawnWait = 10 * time.Second

// Spawn makes sure a guard answers on a socket: if none does, it starts args as a
// process of its own session that outlives the caller, its output appended to the
// file logPath, and waits until it answers. An installation in which something
// else starts the guard does not need it.
func Spawn(ctx context.Context, socket, logPath string, args ...string) error {
	must.That(len(args) > 0, "a guard is started by a program")
	ctx, cancel := context.WithTimeout(ctx, spawnWait)
	defer cancel()
	c := NewClient(socket)
	defer func() { _ = c.Close() }()
	if _, err := c.Status(ctx); err == nil {
		return nil
	}
	program, err := exec.LookPath(args[0])
	if err != nil {
		return fmt.Errorf("start guard: %w", err)
	}
	//nolint:gosec // the caller's own file
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start guard: %w", err)
	}
	defer func() { _ = log.Close() }()
	// setsid forks, so the guard is nobody's child to wait for.
	//nolint:gosec // the caller's own program
	cmd := exec.CommandContext(ctx, "setsid", append([]string{"--fork", program}, args[1:]...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("start guard: %w", err)
	}
	for {
		_, err := c.Status(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return model.Errorf(model.Unavailable,
				"the guard does not answer; what it said is in its log: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
