package agent

import (
	"slices"
	"time"

	"drystone.example/drystone/backend/metrics"
	"drystone.example/drystone/backend/model"
)

var _ metrics.Source = (*Agent)(nil)

// CountDisks is what this node's disks have done.
func (a *Agent) CountDisks() []metrics.DiskCount {
	open := a.disks.all()
	out := make([]metrics.DiskCount, 0, len(open))
	for id, d := range open {
		u, s := d.Usage(), d.Stats()
		out = append(out, metrics.DiskCount{ID: id, Size: u.Size, Used: u.Used, IO: metrics.IOCount{
			Reads: s.Reads, Writes: s.Writes, ReadBytes: s.ReadBytes, WriteBytes: s.WriteBytes,
			ReadTime: s.ReadTime, WriteTime: s.WriteTime,
		}})
	}
	slices.SortFunc(out, func(a, b metrics.DiskCount) int { return compareID(a.ID, b.ID) })
	return out
}

// CountGuests is what this node's guests have done.
func (a *Agent) CountGuests() []metrics.GuestCount {
	if a.guests == nil {
		return nil
	}
	return a.guests.counts()
}

// counts puts together what the hypervisor knows of the running guests and what
// went through their disks. A guest on its way from one node to another is in the
// hypervisors of both, and counts where the record has it.
func (g *guests) counts() []metrics.GuestCount {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]metrics.GuestCount, 0, len(g.stats))
	for _, s := range g.stats {
		vm, err := g.agent.cfg.Meta.Local().VM(s.VM)
		if err != nil || vm.Node != g.agent.cfg.Self {
			continue
		}
		c := metrics.GuestCount{
			ID: s.VM, CPUs: vm.CPUs, CPU: s.CPU, Memory: guestMemory(vm, s.Resident, s.Memory, s.Unused),
		}
		if m := g.all[s.VM]; m != nil {
			c.IO = m.io()
		}
		out = append(out, c)
	}
	return out
}

// processors is how much processor time the running guests have taken.
func (g *guests) processors() map[model.VMID]time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make(map[model.VMID]time.Duration, len(g.stats))
	for _, s := range g.stats {
		out[s.VM] = s.CPU
	}
	return out
}

// guestMemory is what a guest uses: by its own word if it gives one, else what
// its process occupies, at most what it was given.
func guestMemory(vm model.VM, resident, memory, unused model.Bytes) model.Bytes {
	if memory > 0 && unused > 0 {
		return memory - unused
	}
	return min(resident, vm.Memory)
}
