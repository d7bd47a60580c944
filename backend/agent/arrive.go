package agent

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"sync"
	"time"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/virt"
)

// arrivals are the guests on their way to this node, each with who waits for it.
type arrivals struct {
	mu  sync.Mutex // guards all; nothing blocks under it
	all map[model.TaskID]*arrival
}

// An arrival is one guest on its way here, from when its QEMU waits until the record
// has decided.
type arrival struct {
	vm     model.VM
	from   model.NodeID
	cookie chan []byte // what the other node's libvirt says at the end
	landed chan struct{}
	answer []byte // written before landed is closed
}

// A describeCall asks how a machine would be described. For one of the first hardware
// it is sent as the identifier alone, which is all that older daemons know.
type describeCall struct {
	VM       model.VMID `json:"vm"`
	Hardware int        `json:"hardware"`
}

type arriveCall struct {
	VM     model.VMID   `json:"vm"`
	Task   model.TaskID `json:"task"`
	Domain string       `json:"domain"`
	Cookie []byte       `json:"cookie"`
}

type landCall struct {
	VM     model.VMID   `json:"vm"`
	Task   model.TaskID `json:"task"`
	Cookie []byte       `json:"cookie"`
}

type landAnswer struct {
	Cookie []byte `json:"cookie"`
}

// cookieTime is how long an arrival waits for the other node's word when the record has
// decided. The word is worth figures only.
const cookieTime = 5 * time.Second

func (a *Agent) handleDescribe(ctx context.Context, _ model.NodeID, body json.RawMessage) (any, error) {
	var c describeCall
	if json.Unmarshal(body, &c.VM) != nil {
		if err := json.Unmarshal(body, &c); err != nil {
			return nil, model.Errorf(model.Invalid, "read request: %w", err)
		}
	}
	if a.guests == nil {
		return nil, model.Errorf(model.Unavailable, "this node runs no guests")
	}
	if c.Hardware > virt.Hardware {
		return nil, model.Errorf(model.Unavailable, "this node runs a daemon that is too old for the guest's devices")
	}
	view, err := a.cfg.Meta.View(ctx) // the guest was made to match the record a moment ago
	if err != nil {
		return nil, err
	}
	vm, err := view.VM(c.VM)
	if err != nil {
		return nil, err
	}
	d, err := a.guests.domain(ctx, vm)
	if err != nil {
		return nil, err
	}
	if d.Hardware = c.Hardware; d.Hardware < virt.Placed {
		d.NICs = nil
	}
	return a.guests.hypervisor.Describe(d)
}

// handleArrive makes everything ready for a guest that the record says is to come from
// the node that asks.
func (a *Agent) handleArrive(ctx context.Context, peer model.NodeID, body json.RawMessage) (any, error) {
	var c arriveCall
	if err := json.Unmarshal(body, &c); err != nil {
		return nil, model.Errorf(model.Invalid, "read request: %w", err)
	}
	if a.guests == nil {
		return nil, model.Errorf(model.Unavailable, "this node runs no guests")
	}
	view, err := a.cfg.Meta.View(ctx)
	if err != nil {
		return nil, err
	}
	vm, err := view.VM(c.VM)
	if err != nil {
		return nil, err
	}
	if vm.Node != peer || vm.Migration == nil || vm.Migration.Task != c.Task || vm.Migration.To != a.cfg.Self {
		return nil, model.Errorf(model.Conflict, "vm %s is not being migrated here", vm.Name)
	}
	if !a.cfg.Meta.Lease().Valid() {
		return nil, model.Errorf(model.Unavailable, "this node may not run guests now: it has no lease")
	}
	return a.guests.arrive(ctx, vm, c)
}

// arrive starts the QEMU that waits, and who waits for the record.
func (g *guests) arrive(ctx context.Context, vm model.VM, c arriveCall) (cookie []byte, err error) {
	m, err := g.claim(ctx, vm.ID)
	if err != nil {
		return nil, err
	}
	in, err := g.receive(ctx, m, vm, c)
	if err != nil {
		g.closeFronts(m)
		g.release(g.agent.ctx, m)
		return nil, err
	}
	it := &arrival{vm: vm, from: vm.Node, cookie: make(chan []byte, 1), landed: make(chan struct{})}
	g.arrivals.mu.Lock()
	if g.arrivals.all == nil {
		g.arrivals.all = map[model.TaskID]*arrival{}
	}
	g.arrivals.all[c.Task] = it
	g.arrivals.mu.Unlock()
	g.agent.work.Go(func() {
		defer g.release(g.agent.ctx, m)
		g.land(m, it, in)
		g.arrivals.mu.Lock()
		delete(g.arrivals.all, c.Task)
		g.arrivals.mu.Unlock()
	})
	return in.Cookie, nil
}

func (g *guests) receive(ctx context.Context, m *guest, vm model.VM, c arriveCall) (*virt.Arrival, error) {
	domain, err := g.domain(ctx, vm)
	if err != nil {
		return nil, err
	}
	g.closeFronts(m) // no state of an old QEMU may be taken for the new one's
	if err := g.openFronts(ctx, m, vm); err != nil {
		return nil, err
	}
	m.setFlash(flashWaits)
	in, err := g.hypervisor.Arrive(ctx, domain, c.Domain, c.Cookie, g.hypervisor.ReceiveSocket(vm.ID))
	if err != nil {
		return nil, err
	}
	if err := g.underGuard(ctx, vm.ID); err != nil {
		in.Close()
		return nil, err
	}
	return in, nil
}

// land waits until the record has decided, and lets the guest run or forgets it.
func (g *guests) land(m *guest, it *arrival, in *virt.Arrival) {
	defer close(it.landed)
	moved := g.decided(it.vm)
	var cookie []byte
	select {
	case cookie = <-it.cookie:
	case <-time.After(cookieTime):
	case <-g.agent.ctx.Done():
	}
	if g.agent.ctx.Err() != nil {
		in.Close()
		return
	}
	if moved {
		m.setFlash(flashServes)
	}
	var err error
	if it.answer, err = in.End(g.agent.ctx, cookie, moved); err != nil && moved {
		g.agent.log.Error("guest did not arrive; it is started anew", "vm", m.id, "err", err)
		moved = false // what waits here has not all of the guest's memory, and never will
	}
	if !moved {
		if err := g.hypervisor.Destroy(g.agent.ctx, m.id); err != nil {
			g.agent.log.Warn("guest that did not move here was not ended", "vm", m.id, "err", err)
		}
		if err := g.guard.Forget(g.agent.ctx, m.id); err != nil {
			g.agent.log.Debug("guard was not told of a stop", "vm", m.id, "err", err)
		}
		g.closeFronts(m)
	}
}

// decided waits until the record says whether a machine has moved here. That it is
// placed here says less: it may have been taken over from a node that died while it
// sent, or before.
func (g *guests) decided(vm model.VM) (moved bool) {
	for {
		view := g.agent.cfg.Meta.Local()
		now, err := view.VM(vm.ID)
		if err != nil || now.Migration == nil || now.Migration.Task != vm.Migration.Task {
			return err == nil && now.Node == g.agent.cfg.Self && now.Power == model.PowerOn && !now.Moved.At.Equal(vm.Moved.At)
		}
		select {
		case <-view.Next():
		case <-g.agent.ctx.Done():
			return false
		}
	}
}

// handleLand gives an arrival the other side's word, and answers with libvirt's.
func (a *Agent) handleLand(ctx context.Context, peer model.NodeID, body json.RawMessage) (any, error) {
	var c landCall
	if err := json.Unmarshal(body, &c); err != nil {
		return nil, model.Errorf(model.Invalid, "read request: %w", err)
	}
	it, err := a.arrival(c.Task, peer)
	if err != nil {
		return nil, err
	}
	select {
	case it.cookie <- c.Cookie:
	default:
	}
	select {
	case <-it.landed:
		return landAnswer{it.answer}, nil
	case <-ctx.Done():
		return nil, waiting(ctx, "machine %s is landing", c.VM)
	}
}

// arrival finds a guest that comes from a peer.
func (a *Agent) arrival(task model.TaskID, peer model.NodeID) (*arrival, error) {
	if a.guests == nil {
		return nil, model.Errorf(model.Unavailable, "this node runs no guests")
	}
	a.guests.arrivals.mu.Lock()
	defer a.guests.arrivals.mu.Unlock()
	it := a.guests.arrivals.all[task]
	if it == nil || it.from != peer {
		return nil, model.Errorf(model.NotFound, "no guest is on its way here by task %s", task)
	}
	return it, nil
}

// serveMigration joins a stream of the node a guest leaves with the QEMU that waits.
func (a *Agent) serveMigration(ctx context.Context, peer model.NodeID, conn net.Conn) {
	name := make([]byte, len(model.TaskID(0).String()))
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return
	}
	if _, err := io.ReadFull(conn, name); err != nil {
		return
	}
	task, err := model.ParseID[model.TaskID](string(name))
	if err != nil || conn.SetReadDeadline(time.Time{}) != nil {
		return
	}
	it, err := a.arrival(task, peer)
	if err != nil {
		a.log.Debug("stream of a guest's memory was refused", "node", peer, "err", err)
		return
	}
	var d net.Dialer
	qemu, err := d.DialContext(ctx, "unix", a.guests.hypervisor.ReceiveSocket(it.vm.ID))
	if err != nil {
		a.log.Warn("guest's memory cannot be received", "vm", it.vm.ID, "err", err)
		return
	}
	Join(ctx, conn, qemu)
}
