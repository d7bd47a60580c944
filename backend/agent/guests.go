package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"drystone.example/drystone/backend/guard"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/proc"
	"drystone.example/drystone/backend/virt"
)

// How often guests are compared with the record without being asked to, and how
// long a machine that does not start is left alone, at first and at most.
const (
	guestsEvery   = 5 * time.Second
	startAgain    = 2 * time.Second
	startAgainMax = time.Minute
	startTime     = 90 * time.Second
	claimAgain    = 50 * time.Millisecond
)

// guests makes libvirt match the record on this node.
type guests struct {
	agent      *Agent
	hypervisor *virt.Hypervisor
	guard      *guard.Client
	pids       string

	arrivals arrivals

	mu    sync.Mutex // guards what follows; nothing blocks under it
	all   map[model.VMID]*guest
	seen  bool         // libvirt answered when it was asked last
	stats []virt.Stats // of the running guests, a second old at most
}

// A guest is one machine this node looks after.
type guest struct {
	id model.VMID

	// Guarded by guests.mu.
	busy bool     // its goroutine runs, or a migration
	wake bool     // something changed while it ran
	seen []*front // what fronts was last

	seenDrives []*drive // what drives was last
	flash      *flash   // nil: it has no NVRAM, or it is not served; changed only by the goroutine

	// Of the goroutine, of which there is one at a time.
	fronts   []*front
	failures int
	notYet   time.Time // it is not started before
	cards    cards
	disks    plugged
	drives   []*drive
	media    media
}

func (g *guests) ready() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.seen
}

// run compares, again and again, until ctx ends. Guests run on.
func (g *guests) run(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	g.agent.work.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-g.hypervisor.Events():
				select {
				case changed <- struct{}{}:
				default:
				}
			}
		}
	})
	g.agent.work.Go(func() { g.sampling(ctx) })
	tick := time.NewTicker(guestsEvery)
	defer tick.Stop()
	for {
		view := g.agent.cfg.Meta.Local()
		g.compareAll(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-view.Next():
		case <-changed:
		case <-tick.C:
		}
	}
}

// sampling asks libvirt each second what the guests have used, while there are
// any.
func (g *guests) sampling(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		g.mu.Lock()
		idle := len(g.all) == 0 && len(g.stats) == 0
		g.mu.Unlock()
		if idle {
			continue
		}
		stats, err := g.hypervisor.Stats(ctx)
		if err != nil {
			stats = nil
		}
		g.mu.Lock()
		g.stats = stats
		g.mu.Unlock()
	}
}

// compareAll starts the comparison of every machine that is placed here or that
// libvirt has here.
func (g *guests) compareAll(ctx context.Context) {
	have, err := g.hypervisor.Guests(ctx)
	g.mu.Lock()
	g.seen = err == nil
	g.mu.Unlock()
	if err != nil {
		return // Ping and the API say so; the record stays as it is
	}
	running := map[model.VMID]virt.Guest{}
	for _, h := range have {
		running[h.VM] = h
	}
	want := map[model.VMID]bool{}
	for _, vm := range g.agent.cfg.Meta.Local().VMs() {
		if vm.Node == g.agent.cfg.Self {
			want[vm.ID] = true
		}
	}
	for id := range running {
		want[id] = true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for id := range g.all {
		want[id] = true
	}
	for id := range want {
		g.start(ctx, id)
	}
}

// start runs a machine's comparison, or notes that it is to run once more. The
// lock is held.
func (g *guests) start(ctx context.Context, id model.VMID) {
	m := g.all[id]
	if m == nil {
		m = &guest{id: id}
		g.all[id] = m
	}
	if m.busy {
		m.wake = true
		return
	}
	m.busy = true
	g.compareWhile(ctx, m)
}

// compareWhile runs the comparison of a machine that is busy with it, as long as
// there is news. The lock need not be held.
func (g *guests) compareWhile(ctx context.Context, m *guest) {
	g.agent.work.Go(func() {
		for again := true; again; {
			keep := g.compare(ctx, m)
			g.mu.Lock()
			again = m.wake && ctx.Err() == nil
			m.wake = false
			if !again {
				m.busy = false
				if !keep {
					delete(g.all, m.id)
				}
			}
			g.mu.Unlock()
		}
	})
}

// claim takes a machine out of the comparison, for a migration; release puts it back.
func (g *guests) claim(ctx context.Context, id model.VMID) (*guest, error) {
	for {
		g.mu.Lock()
		m := g.all[id]
		if m == nil {
			m = &guest{id: id}
			g.all[id] = m
		}
		free := !m.busy
		m.busy = true
		g.mu.Unlock()
		if free {
			return m, nil
		}
		select {
		case <-time.After(claimAgain):
		case <-ctx.Done():
			return nil, waiting(ctx, "machine %s is being looked after", id)
		}
	}
}

// release puts a claimed machine back, and looks at it at once.
func (g *guests) release(ctx context.Context, m *guest) { g.compareWhile(ctx, m) }

// compare closes the gap between the record and libvirt for one machine. It
// reports whether there is anything left to look after.
func (g *guests) compare(ctx context.Context, m *guest) (keep bool) {
	have, err := g.hypervisor.Guest(ctx, m.id)
	if err != nil && model.CodeOf(err) != model.NotFound {
		return true
	}
	alive := err == nil && !have.Process.IsZero()
	vm, err := g.agent.cfg.Meta.Local().VM(m.id)
	if err != nil || vm.Node != g.agent.cfg.Self {
		return g.leave(ctx, m)
	}
	if vm.Migration != nil {
		g.callOff(ctx, vm) // of a daemon before this one
	}
	switch {
	case vm.Power == model.PowerOn && alive:
		g.adopt(ctx, m, vm, have)
	case vm.Power == model.PowerOn && ended(have) && vm.Status.State == model.VMRunning:
		// The guest shut itself down: that is its owner's will.
		g.off(ctx, vm)
	case vm.Power == model.PowerOn:
		g.boot(ctx, m, vm)
	default:
		g.halt(ctx, m, vm, alive)
	}
	return true
}

// ended reports whether a machine stopped because the guest shut down.
func ended(have virt.Guest) bool {
	return have.VM != 0 && have.State == virt.Stopped && have.Reason == "shutdown"
}

// leave ends a machine that the record does not place here. The record is read
// again, linearizably, because ours may be old.
func (g *guests) leave(ctx context.Context, m *guest) (keep bool) {
	view, err := g.agent.cfg.Meta.View(ctx)
	if err != nil {
		return true
	}
	if vm, err := view.VM(m.id); err == nil && vm.Node == g.agent.cfg.Self {
		return true
	}
	if err := g.hypervisor.Destroy(ctx, m.id); err != nil {
		g.agent.log.Warn("guest that is not ours to run was not ended", "vm", m.id, "err", err)
		return true
	}
	g.closeFronts(m)
	if err := g.hypervisor.Undefine(ctx, m.id); err != nil {
		g.agent.log.Warn("machine was not forgotten", "vm", m.id, "err", err)
		return true
	}
	return false
}

// adopt looks after a machine that runs: its disks are served, its process is
// under guard, and the record says that it runs.
func (g *guests) adopt(ctx context.Context, m *guest, vm model.VM, have virt.Guest) {
	if err := g.openFronts(ctx, m, vm); err != nil {
		g.agent.log.Error("disks of a running guest are not served", "vm", m.id, "err", err)
		return
	}
	if err := g.guard.Register(ctx, proc.Guest{VM: m.id, ID: have.Process}); err != nil {
		g.agent.log.Error("guest is not under guard", "vm", m.id, "err", err)
	}
	m.failures = 0
	state, reason := model.VMRunning, ""
	switch have.State { //nolint:exhaustive // the others are not alive
	case virt.Running:
		if err := g.matchNICs(ctx, m, vm, have); err != nil {
			reason = "its network cards are not as they should be: " + Sentence(err)
		}
		if err := g.matchDisks(ctx, m, vm, have); err != nil {
			reason = "its disks are not as they should be: " + Sentence(err)
		}
		if err := g.matchMedia(ctx, m, vm, have); err != nil && reason == "" {
			reason = "its cd-rom drives are not as they should be: " + Sentence(err)
		}
	case virt.Stopping:
		state = model.VMStopping
	case virt.Paused:
		if have.Reason == "migration" && g.resume(ctx, m) {
			break
		}
		reason = "paused: " + have.Reason
	case virt.Crashed:
		state, reason = model.VMFailed, "the guest crashed"
	}
	g.report(ctx, vm, state, reason)
}

// resume lets a guest run on that rests for a migration, if the record says, as it is
// now, that the guest has not moved and is not to.
func (g *guests) resume(ctx context.Context, m *guest) bool {
	view, err := g.agent.cfg.Meta.View(ctx)
	if err != nil {
		return false
	}
	vm, err := view.VM(m.id)
	if err != nil || vm.Node != g.agent.cfg.Self || vm.Migration != nil {
		return false
	}
	if err := g.hypervisor.Resume(ctx, m.id); err != nil {
		g.agent.log.Warn("guest was not resumed", "vm", m.id, "err", err)
		return false
	}
	return true
}

// boot starts a machine, unless it failed to start a moment ago.
func (g *guests) boot(ctx context.Context, m *guest, vm model.VM) {
	if time.Now().Before(m.notYet) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	view, err := g.agent.cfg.Meta.View(ctx)
	if err != nil {
		return // no quorum: nothing is started
	}
	if vm, err = view.VM(m.id); err != nil || vm.Node != g.agent.cfg.Self || vm.Power != model.PowerOn {
		return
	}
	if !g.agent.cfg.Meta.Lease().Valid() {
		return
	}
	g.report(ctx, vm, model.VMStarting, "")
	err = g.bootNow(ctx, m, vm)
	if err == nil {
		have, err := g.hypervisor.Guest(ctx, m.id)
		if err == nil && !have.Process.IsZero() {
			g.adopt(ctx, m, vm, have)
		}
		return
	}
	m.failures++
	wait := min(startAgain<<min(m.failures-1, 5), startAgainMax)
	m.notYet = time.Now().Add(wait)
	g.closeFronts(m)
	g.agent.log.Error("guest was not started", "vm", m.id, "err", err)
	g.report(ctx, vm, model.VMFailed, "it could not be started: "+Sentence(err))
}

func (g *guests) bootNow(ctx context.Context, m *guest, vm model.VM) error {
	domain, err := g.domain(ctx, vm)
	if err != nil {
		return err
	}
	g.closeFronts(m) // of a life before: no state of an old QEMU may be taken for the new one's
	if err := g.openFronts(ctx, m, vm); err != nil {
		return err
	}
	if err := g.hypervisor.Start(ctx, domain); err != nil {
		return fmt.Errorf("start guest: %w", err)
	}
	return nil
}

// domain is a machine as it runs on this node; its boot files are fetched.
func (g *guests) domain(ctx context.Context, vm model.VM) (virt.Domain, error) {
	kernel, err := g.kernel(ctx, vm)
	if err != nil {
		return virt.Domain{}, err
	}
	nics, err := g.nicsOf(g.agent.cfg.Meta.Local(), vm)
	if err != nil {
		return virt.Domain{}, err
	}
	d := virt.Domain{ID: vm.ID, Name: vm.Name, CPUs: vm.CPUs, Memory: vm.Memory, NICs: nics, Kernel: kernel, Hardware: virt.Hardware}
	d.Firmware = g.agent.firmware(vm)
	boot := bootOrders(vm)
	if d.Disks, err = g.disksOf(vm, boot); err != nil {
		return virt.Domain{}, err
	}
	d.CDROMs = g.cdroms(vm, boot)
	return d, nil
}

// kernel brings the files a machine boots from to this node.
func (g *guests) kernel(ctx context.Context, vm model.VM) (*virt.Kernel, error) {
	if vm.Boot == nil {
		return nil, nil //nolint:nilnil // it boots from its disk
	}
	path, err := g.agent.fetch(ctx, vm.Boot.Kernel)
	if err != nil {
		return nil, err
	}
	k := &virt.Kernel{Path: path, Append: vm.Boot.Append}
	if vm.Boot.Initrd.SHA256 == "" {
		return k, nil
	}
	k.Initrd, err = g.agent.fetch(ctx, vm.Boot.Initrd)
	return k, err
}

// halt makes a machine be off.
func (g *guests) halt(ctx context.Context, m *guest, vm model.VM, alive bool) {
	if alive {
		if err := g.hypervisor.Destroy(ctx, m.id); err != nil {
			g.agent.log.Warn("guest was not stopped", "vm", m.id, "err", err)
			return
		}
		if err := g.guard.Forget(ctx, m.id); err != nil {
			g.agent.log.Debug("guard was not told of a stop", "vm", m.id, "err", err)
		}
	}
	m.failures, m.notYet = 0, time.Time{}
	g.closeFronts(m)
	g.report(ctx, vm, model.VMStopped, "")
}

// off records that a guest shut itself down.
func (g *guests) off(ctx context.Context, vm model.VM) {
	_, err := g.agent.cfg.Meta.Apply(ctx, model.System, command.VMPower{VM: vm.ID, Power: model.PowerOff})
	if err != nil {
		g.agent.log.Warn("shutdown of a guest was not recorded", "vm", vm.ID, "err", err)
	}
}

// report tells the record how a machine is, if it does not say so already.
func (g *guests) report(ctx context.Context, vm model.VM, state model.VMState, reason string) {
	now, err := g.agent.cfg.Meta.Local().VM(vm.ID)
	if err == nil && now.Status.State == state && now.Status.Reason == reason && now.Status.Node == g.agent.cfg.Self {
		return
	}
	_, err = g.agent.cfg.Meta.Apply(ctx, model.System, command.VMReport{
		VM: vm.ID, Node: g.agent.cfg.Self, State: state, Reason: reason,
	})
	switch model.CodeOf(err) { //nolint:exhaustive // the rest is worth a line
	case "", model.NotFound, model.Conflict, model.Unavailable:
	default:
		g.agent.log.Warn("machine was not reported", "vm", vm.ID, "err", err)
	}
}
