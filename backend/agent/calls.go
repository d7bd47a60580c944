package agent

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
)

// The calls and streams by which one node asks another to do what only that one
// can. Who may ask for it was decided where the request came in.
const (
	callAddDisk = "disk.add"
	callGuest   = "guest.do"
	callCancel  = "task.cancel"
)

type addDiskCall struct {
	Actor model.Actor `json:"actor"`
	NewDisk
}

// AddDiskAt adds a disk on any node.
func (a *Agent) AddDiskAt(ctx context.Context, by model.Actor, node model.NodeID, n NewDisk) (model.Disk, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	var out model.Disk
	err := a.cfg.Wire.Call(ctx, node, callAddDisk, addDiskCall{by, n}, &out)
	return out, err
}

func (a *Agent) handleAddDisk(ctx context.Context, _ model.NodeID, body json.RawMessage) (any, error) {
	var c addDiskCall
	if err := json.Unmarshal(body, &c); err != nil {
		return nil, model.Errorf(model.Invalid, "read request: %w", err)
	}
	return a.AddDisk(ctx, c.Actor, c.NewDisk)
}

// What can be done to a running guest beside what the record says.
const (
	GuestShutdown = "shutdown"
	GuestReset    = "reset"
)

type guestCall struct {
	VM model.VMID `json:"vm"`
	Do string     `json:"do"`
}

// Guest asks the node of a machine to shut its guest down or to reset it.
func (a *Agent) Guest(ctx context.Context, vm model.VM, do string) error {
	if vm.Node == 0 {
		return model.Errorf(model.Conflict, "vm %s is not running", vm.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	return a.cfg.Wire.Call(ctx, vm.Node, callGuest, guestCall{vm.ID, do}, nil)
}

func (a *Agent) handleGuest(ctx context.Context, _ model.NodeID, body json.RawMessage) (any, error) {
	var c guestCall
	if err := json.Unmarshal(body, &c); err != nil {
		return nil, model.Errorf(model.Invalid, "read request: %w", err)
	}
	if a.guests == nil {
		return nil, model.Errorf(model.Unavailable, "this node runs no guests")
	}
	switch c.Do {
	case GuestShutdown:
		return struct{}{}, a.guests.hypervisor.Shutdown(ctx, c.VM)
	case GuestReset:
		return struct{}{}, a.guests.hypervisor.Reset(ctx, c.VM)
	}
	return nil, model.Errorf(model.Invalid, "a guest cannot be asked to %q", c.Do)
}

type cancelCall struct {
	Task model.TaskID `json:"task"`
}

// CancelTask asks every node that is up to cancel a task; one of them has it.
func (a *Agent) CancelTask(ctx context.Context, view *state.View, id model.TaskID) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, n := range view.Nodes() {
		if n.ID != a.cfg.Self && !a.cfg.Up(n.ID) {
			continue
		}
		var found bool
		if err := a.cfg.Wire.Call(ctx, n.ID, callCancel, cancelCall{id}, &found); err == nil && found {
			return nil
		}
	}
	return model.Errorf(model.NotFound, "no task %s is running", id)
}

func (a *Agent) handleCancel(_ context.Context, _ model.NodeID, body json.RawMessage) (any, error) {
	var c cancelCall
	if err := json.Unmarshal(body, &c); err != nil {
		return nil, model.Errorf(model.Invalid, "read request: %w", err)
	}
	return a.Tasks.Cancel(c.Task), nil
}

// Join copies between two connections until one of them ends or ctx does; it
// closes both.
func Join(ctx context.Context, x, y io.ReadWriteCloser) {
	stop := context.AfterFunc(ctx, func() { x.Close(); y.Close() })
	defer stop()
	done := make(chan struct{})
	go func() { // ends when x is closed below
		defer close(done)
		_, _ = io.Copy(y, x)
		y.Close()
	}()
	_, _ = io.Copy(x, y)
	x.Close()
	<-done
}
