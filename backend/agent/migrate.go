package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/proc"
	"drystone.example/drystone/backend/unixsock"
	"drystone.example/drystone/backend/virt"
)

// A live migration is driven by the node the guest runs on. Libvirt copies the guest's
// memory to a QEMU that waits on the other node and puts the guest to rest; then the
// record decides. The disks follow by themselves: the guest's rings stop here before
// they run there, and a volume is held while they run.
//
// The invariants: the guest runs on the other node only after the record says that it
// has moved, and on this one only while it does not. Who does not know what the record
// says waits until it does; the guest rests meanwhile. And the record says so only when
// every request of the guest's to its disks has been answered.

// The calls and the stream of a migration, from the node a guest leaves.
const (
	callMigrate  = "guest.migrate"
	callDescribe = "guest.describe"
	callArrive   = "guest.arrive"
	callLand     = "guest.land"
	migrateProto = "migrate"
)

// MigrateLimit is how long copying a machine's memory may take unless it is said.
const MigrateLimit = 10 * time.Minute

// The times of a migration, beside that of copying the memory.
const (
	arriveTime     = 2 * time.Minute
	landTime       = time.Minute
	decideAgain    = 250 * time.Millisecond
	describeTime   = time.Minute
	migrateRequest = 15 * time.Second
)

// A migrateCall asks the node of a machine to move it.
type migrateCall struct {
	VM    model.VMID    `json:"vm"`
	To    model.NodeID  `json:"to"`
	Limit time.Duration `json:"limit"`

	For model.MoveReason `json:"for,omitempty"`
}

// Migrate asks a machine's node to move it to another while it runs, and returns the
// task by which that node does so.
func (a *Agent) Migrate(ctx context.Context, vm model.VM, to model.NodeID, limit time.Duration, why model.MoveReason,
) (Task, error) {
	if vm.Node == 0 {
		return Task{}, model.Errorf(model.Conflict, "vm %s is not running", vm.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, migrateRequest)
	defer cancel()
	var t Task
	err := a.cfg.Wire.Call(ctx, vm.Node, callMigrate, migrateCall{vm.ID, to, limit, why}, &t)
	return t, err
}

func (a *Agent) handleMigrate(ctx context.Context, _ model.NodeID, body json.RawMessage) (any, error) {
	var c migrateCall
	if err := json.Unmarshal(body, &c); err != nil {
		return nil, model.Errorf(model.Invalid, "read request: %w", err)
	}
	if a.guests == nil {
		return nil, model.Errorf(model.Unavailable, "this node runs no guests")
	}
	view, err := a.cfg.Meta.View(ctx) // a node that has just started may not have heard of the machine
	if err != nil {
		return nil, err
	}
	vm, err := view.VM(c.VM)
	if err != nil {
		return nil, err
	}
	m, err := a.guests.claim(ctx, vm.ID)
	if err != nil {
		return nil, err
	}
	limited, stop := context.WithTimeoutCause(a.ctx, c.Limit,
		model.Errorf(model.Unavailable, "the guest changes its memory faster than it can be copied in %v", c.Limit))
	limited, work := a.Tasks.Begin(limited, "vm.migrate", vm.Name)
	out, err := a.cfg.Meta.Apply(ctx, model.System, command.VMMigrate{
		VM: vm.ID, Task: work.ID(), From: a.cfg.Self, To: c.To, For: c.For,
	})
	if err != nil {
		stop()
		work.End(err)
		a.guests.release(a.ctx, m)
		return nil, err
	}
	vm = out.(model.VM) //nolint:errcheck,forcetypeassert // the command says what it returns
	a.work.Go(func() {
		defer stop()
		defer a.guests.release(a.ctx, m)
		err := a.guests.migrate(limited, m, vm, work)
		if err != nil && !errors.Is(err, context.Canceled) {
			a.log.Warn("machine was not migrated", "vm", vm.ID, "err", err)
		}
		work.End(err)
	})
	return work.now(), nil
}

// migrate moves a claimed machine of which the record says that it is to move.
func (g *guests) migrate(ctx context.Context, m *guest, vm model.VM, work *Work) error {
	to := vm.Migration.To
	err := g.answered(m, vm)
	if err == nil {
		err = g.matched(ctx, m, vm)
	}
	if err != nil {
		g.callOff(g.agent.ctx, vm)
		return err
	}
	d, cookie, err := g.depart(ctx, vm, to)
	if err != nil {
		g.callOff(g.agent.ctx, vm)
		return err
	}
	cookie, err = g.send(ctx, vm, d, cookie, work)
	if err == nil {
		err = g.atRest(m, vm)
	}
	if err == nil {
		err = m.restFlash(ctx)
	}
	if err != nil {
		m.setFlash(flashServes)
		d.Close() // the guest runs on
		g.callOff(g.agent.ctx, vm)
		return err
	}
	moved, known := g.decide(vm)
	if !known {
		d.Close() // the guest rests until the next daemon knows
		return model.Errorf(model.Unavailable, "the node stopped before it was known whether vm %s has moved", vm.Name)
	}
	if !moved {
		m.setFlash(flashServes)
		err = model.Errorf(model.Conflict, "the migration of vm %s was called off", vm.Name)
	}
	if moved { // so that the other node need not wait for our lease
		g.closeDrives(m, func(d *drive) bool { return d.disk })
	}
	// The other node learns from the record what to do; it is told to do it soon.
	last, stop := context.WithTimeout(g.agent.ctx, landTime)
	defer stop()
	var landed landAnswer
	call := landCall{VM: vm.ID, Task: vm.Migration.Task, Cookie: cookie}
	if e := g.agent.cfg.Wire.Call(last, to, callLand, call, &landed); e != nil && moved {
		g.agent.log.Warn("node did not say how a machine arrived", "vm", vm.ID, "node", to, "err", e)
	}
	if e := d.End(last, landed.Cookie, moved); e != nil {
		g.agent.log.Warn("migration was not ended cleanly", "vm", vm.ID, "moved", moved, "err", e)
	}
	return err
}

// answered returns an error if a disk of a guest at rest has requests that are not
// answered, or if that is not known: they are kept for the QEMU they came from, and do
// not go with the guest.
func (g *guests) answered(m *guest, vm model.VM) error {
	if !g.serving(m, vm) {
		return model.Errorf(model.Unavailable, "not all disks of vm %s are served", vm.Name)
	}
	for i, f := range m.fronts {
		switch s := f.server.Stats(); {
		case !s.Connected:
			return model.Errorf(model.Unavailable, "disk %d of vm %s is not connected", i+1, vm.Name)
		case s.Parked > 0:
			return model.Errorf(model.Unavailable, "disk %d of vm %s does not answer: %d requests wait", i+1, vm.Name, s.Parked)
		}
	}
	return nil
}

// atRest is answered, also for the disks on SATA, once the guest is at rest.
func (g *guests) atRest(m *guest, vm model.VM) error {
	if err := g.answered(m, vm); err != nil {
		return err
	}
	return m.rested(vm)
}

// matched returns an error unless a guest has the network cards, disks and discs of its record: the other
// node makes the machine from that.
func (g *guests) matched(ctx context.Context, m *guest, vm model.VM) error {
	have, err := g.hypervisor.Guest(ctx, vm.ID)
	if err != nil {
		return err
	}
	if have.Hardware < virt.Placed {
		return nil // it has none and moves as it is
	}
	if err := g.matchMedia(ctx, m, vm, have); err != nil {
		return err
	}
	if err := g.matchNICs(ctx, m, vm, have); err != nil {
		return err
	}
	return g.matchDisks(ctx, m, vm, have)
}

// depart prepares both sides.
func (g *guests) depart(ctx context.Context, vm model.VM, to model.NodeID) (
	d *virt.Departure, cookie []byte, err error,
) {
	short, stop := context.WithTimeout(ctx, describeTime)
	defer stop()
	call := func(ctx context.Context, method string, in, out any) error {
		return g.agent.cfg.Wire.Call(ctx, to, method, in, out)
	}
	var there string // the machine's description on the other node
	here, err := g.hypervisor.Guest(short, vm.ID)
	if err != nil {
		return nil, nil, err
	}
	in := any(vm.ID)
	if here.Hardware > 0 {
		in = describeCall{vm.ID, here.Hardware}
	}
	if err := call(short, callDescribe, in, &there); err != nil {
		return nil, nil, fmt.Errorf("prepare node %s: %w", to, err)
	}
	if d, err = g.hypervisor.Depart(short, vm.ID, there); err != nil {
		return nil, nil, err
	}
	long, stop2 := context.WithTimeout(ctx, arriveTime)
	defer stop2()
	arrive := arriveCall{VM: vm.ID, Task: vm.Migration.Task, Domain: d.Domain, Cookie: d.Cookie}
	if err := call(long, callArrive, arrive, &cookie); err != nil {
		d.Close()
		return nil, nil, fmt.Errorf("prepare node %s: %w", to, err)
	}
	return d, cookie, nil
}

// send copies the guest's memory, through the wire. It ends early when the record says
// that the machine is not to move any more, or not to run.
func (g *guests) send(ctx context.Context, vm model.VM, d *virt.Departure, cookie []byte, work *Work,
) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	owner, err := qemuOwner()
	if err != nil {
		return nil, err
	}
	l, err := unixsock.Listen(ctx, g.hypervisor.SendSocket(vm.ID), owner)
	if err != nil {
		return nil, err
	}
	tunnel := make(chan struct{})
	go func() { // ends when the listener is closed, and what it has joined with ctx
		defer close(tunnel)
		g.tunnel(ctx, l, vm)
	}()
	watch := make(chan struct{})
	go func() { // ends with ctx
		defer close(watch)
		cancel(g.unwanted(ctx, vm))
	}()
	out, err := d.Send(ctx, cookie, l.Path(), func(done, total model.Bytes) { work.Progress(done, total) })
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	cancel(nil)
	_ = l.Close()
	<-tunnel
	<-watch
	return out, err
}

// unwanted returns why a migration shall not go on, as soon as it shall not.
func (g *guests) unwanted(ctx context.Context, vm model.VM) error {
	for {
		view := g.agent.cfg.Meta.Local()
		now, err := view.VM(vm.ID)
		switch {
		case err != nil:
			return err
		case now.Power != model.PowerOn:
			return model.Errorf(model.Conflict, "vm %s was switched off", vm.Name)
		case now.Migration == nil || now.Migration.Task != vm.Migration.Task:
			return model.Errorf(model.Conflict, "the migration of vm %s was called off", vm.Name)
		}
		select {
		case <-view.Next():
		case <-ctx.Done():
			return nil
		}
	}
}

// tunnel joins what QEMU connects with the other node, until the listener is closed.
func (g *guests) tunnel(ctx context.Context, l net.Listener, vm model.VM) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		far, err := g.agent.cfg.Wire.Dial(ctx, vm.Migration.To, migrateProto)
		if err == nil {
			_, err = io.WriteString(far, vm.Migration.Task.String())
		}
		if err != nil {
			g.agent.log.Warn("guest's memory has no way to the other node", "vm", vm.ID, "err", err)
			_ = conn.Close()
			continue
		}
		Join(ctx, conn, far)
	}
}

// decide has the record say that a guest at rest has moved, and returns what the record
// says then; it is not known only if the node stops. Nobody else decides that a guest
// has moved; that it has not, also the leader, when this node has lost its lease, and
// then its guests are dead.
func (g *guests) decide(vm model.VM) (moved, known bool) {
	end := command.VMMigrateEnd{VM: vm.ID, Task: vm.Migration.Task, From: g.agent.cfg.Self, Moved: true}
	for {
		ctx, cancel := context.WithTimeout(g.agent.ctx, migrateRequest)
		out, err := g.agent.cfg.Meta.Apply(ctx, model.System, end)
		cancel()
		now, told := out.(model.VM)
		switch code := model.CodeOf(err); {
		case err == nil:
			return true, true
		case code == model.Conflict && told:
			// Perhaps ours, whose answer was lost.
			return now.Migration == nil && now.Node == vm.Migration.To, true
		case code == model.NotFound:
			return false, true
		case g.agent.ctx.Err() != nil:
			return false, false
		}
		select {
		case <-time.After(decideAgain):
		case <-g.agent.ctx.Done():
		}
	}
}

// callOff has the record say that a machine stays where it is.
func (g *guests) callOff(ctx context.Context, vm model.VM) {
	end := command.VMMigrateEnd{VM: vm.ID, Task: vm.Migration.Task, From: g.agent.cfg.Self}
	g.agent.retry("migration was not called off", func(context.Context) error {
		_, err := g.agent.cfg.Meta.Apply(ctx, model.System, end)
		if code := model.CodeOf(err); code == model.Conflict || code == model.NotFound {
			return nil
		}
		return err
	})
}

// underGuard puts the QEMU of an arriving guest under guard, before it runs.
func (g *guests) underGuard(ctx context.Context, id model.VMID) error {
	have, err := g.hypervisor.Guest(ctx, id)
	if err != nil {
		return err
	}
	if have.Process.IsZero() {
		return model.Errorf(model.Unavailable, "machine %s has no process", id)
	}
	return g.guard.Register(ctx, proc.Guest{VM: id, ID: have.Process})
}
