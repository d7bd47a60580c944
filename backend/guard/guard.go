// Package guard keeps the promise that no guest runs twice when the daemon
// cannot: a small separate process holds the node's QEMU processes by pidfd and
// kills them when the node's lease has run out without being renewed.
//
// The daemon tells it which guests there are and until when the lease is good. A
// daemon that is dead, stopped, or stuck does not renew, and the guests are dead
// Margin after the deadline, which is before the leader lets anybody else start
// them. The clock is CLOCK_BOOTTIME, which goes on while the machine sleeps.
//
// The guard does nothing else, reads nothing from disk on its way to a kill, and
// logs only what it killed. It survives the daemon. It remembers the deadline in a file, and finds guests by
// libvirt's pid files, so a guard that starts anew protects what the last one
// did; if it finds guests and no deadline of this boot, the deadline is now.
package guard

import (
	"context"
	"log/slog"
	"time"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/proc"
)

// Margin is how long after the lease's deadline guests are killed. The leader
// waits longer than that.
const Margin = 3 * time.Second

// MaxLease bounds how far ahead a deadline may lie, so that no mistake switches
// the guard off for long.
const MaxLease = time.Minute

// A Boottime is a moment on CLOCK_BOOTTIME in nanoseconds: the machine's uptime
// with its sleep. Zero is no moment.
type Boottime int64

// Config of the guard process.
type Config struct {
	Socket string        // where the daemon finds it: DIR/run/guard.sock; lock and memory lie beside it
	PIDs   string        // libvirt's folder of pid files
	Margin time.Duration // zero: Margin
	Log    *slog.Logger
}

var errSoon = model.Errorf(model.Unavailable, "not built yet")

// Run is the guard process: it takes over from a guard that runs already on the
// same socket, and goes on until ctx ends or the next guard takes over, when it
// returns nil. Guests run on when it ends.
func Run(ctx context.Context, cfg Config) error { return errSoon }

// A Client is the daemon's side. It connects when first used and again after the
// connection was lost, and then registers again everything it had registered. It
// is safe for concurrent use. Every call is bounded to two seconds.
type Client struct{}

// NewClient makes a client; it does not connect yet.
func NewClient(socket string) *Client { return &Client{} }

// Register puts a guest under guard. If the process is dead already that is no error.
func (c *Client) Register(ctx context.Context, g proc.Guest) error { return errSoon }

// Forget takes a guest from under guard. A dead guest need not be forgotten.
func (c *Client) Forget(ctx context.Context, vm model.VMID) error { return errSoon }

// Renew says until when the lease is good. A deadline before the last one changes
// nothing; one further ahead than MaxLease is Invalid.
func (c *Client) Renew(ctx context.Context, deadline Boottime) error { return errSoon }

// Status asks the guard what it guards.
func (c *Client) Status(ctx context.Context) (Status, error) { return Status{}, errSoon }

// Close ends the connection; the guard keeps what it knows.
func (c *Client) Close() error { return nil }

// A Status is what a guard guards.
type Status struct {
	Process  proc.ID      `json:"process"` // of the guard
	Deadline Boottime     `json:"deadline"`
	Guests   []proc.Guest `json:"guests"`
	Killed   int          `json:"killed"` // guests, since the guard started
}

// Spawn makes sure a guard answers on a socket: if none does, it starts args as a
// process of its own session that outlives the caller, its output appended to the
// file logPath, and waits until it answers.
func Spawn(ctx context.Context, socket, logPath string, args ...string) error { return errSoon }
