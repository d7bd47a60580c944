package virt

import (
	"context"
	"errors"

	"github.com/digitalocean/go-libvirt"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/proc"
)

// stateOf translates libvirt's state of a domain.
func stateOf(state int32) State {
	switch libvirt.DomainState(state) {
	case libvirt.DomainRunning, libvirt.DomainBlocked:
		return Running
	case libvirt.DomainPaused, libvirt.DomainPmsuspended:
		return Paused
	case libvirt.DomainShutdown:
		return Stopping
	case libvirt.DomainCrashed:
		return Crashed
	case libvirt.DomainShutoff, libvirt.DomainNostate:
		return Stopped
	default:
		return Stopped
	}
}

// The words for libvirt's reasons, by their number.
var (
	runningReasons = []string{
		"", "booted", "migrated", "restored", "from_snapshot", "unpaused",
		"migration_canceled", "save_canceled", "wakeup", "crashed", "postcopy",
		"postcopy_failed",
	}
	pausedReasons = []string{
		"", "user", "migration", "save", "dump", "io_error", "watchdog", "from_snapshot",
		"shutting_down", "snapshot", "crashed", "starting_up", "postcopy", "postcopy_failed",
		"api_error",
	}
	stoppedReasons = []string{
		"", "shutdown", "destroyed", "crashed", "migrated", "saved", "failed",
		"from_snapshot", "daemon",
	}
)

func reasonOf(state State, reason int32) string {
	var words []string
	switch state {
	case Running:
		words = runningReasons
	case Paused:
		words = pausedReasons
	case Stopped:
		words = stoppedReasons
	case Stopping, Crashed:
	}
	if reason < 0 || int(reason) >= len(words) {
		return ""
	}
	return words[reason]
}

// Guest says what libvirt knows of a machine.
func (h *Hypervisor) Guest(ctx context.Context, vm model.VMID) (g Guest, err error) {
	err = h.do(ctx, quickWait, func(l *libvirt.Libvirt) error {
		g, err = h.look(l, domain(vm))
		return err
	})
	return g, text(err, "look at machine %s", vm)
}

// Guests lists the machines that are ours, running or stopped.
func (h *Hypervisor) Guests(ctx context.Context) (guests []Guest, err error) {
	err = h.do(ctx, quickWait, func(l *libvirt.Libvirt) error {
		domains, _, err := l.ConnectListAllDomains(1, 0)
		if err != nil {
			return err
		}
		for _, d := range domains {
			vm, ours := vmOf(d.Name)
			if !ours || domain(vm).UUID != d.UUID {
				continue
			}
			g, err := h.look(l, d)
			if libvirt.IsNotFound(err) {
				continue // it went away meanwhile
			}
			if err != nil {
				return err
			}
			guests = append(guests, g)
		}
		return nil
	})
	if err != nil {
		return nil, text(err, "list machines")
	}
	return guests, nil
}

// look asks for one domain of ours. Nothing of it waits for QEMU.
func (h *Hypervisor) look(l *libvirt.Libvirt, d libvirt.Domain) (Guest, error) {
	state, reason, err := l.DomainGetState(d, 0)
	if err != nil {
		return Guest{}, err
	}
	vm, _ := vmOf(d.Name)
	g := Guest{VM: vm, State: stateOf(state)}
	g.Reason = reasonOf(g.State, reason)
	doc, err := l.DomainGetMetadata(d, int32(libvirt.DomainMetadataElement),
		libvirt.OptString{metadataURI}, libvirt.DomainAffectCurrent)
	if err != nil && !isError(err, libvirt.ErrNoDomainMetadata) {
		return Guest{}, err
	}
	if err == nil {
		m, err := parseMetadata(doc)
		if err != nil {
			return Guest{}, err
		}
		g.Revision, g.Hardware = m.Revision, m.Hardware
	}
	if p, err := proc.GuestOf(h.pids, vm); err == nil {
		g.Process = p.ID
	}
	return g, nil
}

func isError(err error, n libvirt.ErrorNumber) bool {
	e, ok := errors.AsType[libvirt.Error](err)
	return ok && e.Code == uint32(n)
}

// Stats looks at all running machines at once. CPU and Resident come from the
// kernel and are always there; what libvirt does not answer within a second is
// left zero. It fails only if the machines cannot be listed.
func (h *Hypervisor) Stats(ctx context.Context) ([]Stats, error) {
	guests, err := proc.Guests(h.pids)
	if err != nil {
		return nil, text(err, "look at machines")
	}
	if len(guests) == 0 {
		return nil, nil
	}
	balloons := h.balloons(ctx)
	stats := make([]Stats, 0, len(guests))
	for _, g := range guests {
		u, err := proc.UsageOf(g.ID)
		if err != nil {
			continue // it ended meanwhile
		}
		s := balloons[g.VM]
		s.VM, s.CPU, s.Resident = g.VM, u.CPU, u.Resident
		stats = append(stats, s)
	}
	return stats, nil
}

// balloons asks libvirt for the memory of all running guests.
func (h *Hypervisor) balloons(ctx context.Context) map[model.VMID]Stats {
	found := map[model.VMID]Stats{}
	var records []libvirt.DomainStatsRecord
	err := h.do(ctx, statsWait, func(l *libvirt.Libvirt) (err error) {
		records, err = l.ConnectGetAllDomainStats(nil, uint32(libvirt.DomainStatsBalloon),
			uint32(libvirt.ConnectGetAllDomainsStatsRunning|
				libvirt.ConnectGetAllDomainsStatsNowait))
		return err
	})
	if err != nil {
		h.log.Debug("libvirt does not say how much memory guests use", "err", err)
		return found
	}
	for _, r := range records {
		vm, ours := vmOf(r.Dom.Name)
		if !ours {
			continue
		}
		var s Stats
		for _, p := range r.Params {
			switch p.Field {
			case libvirt.DomainStatsBalloonCurrent:
				s.Memory = memory(p.Value.I)
			case libvirt.DomainStatsBalloonUnused:
				s.Unused = memory(p.Value.I)
			case libvirt.DomainStatsBalloonUsable:
				s.Usable = memory(p.Value.I)
			}
		}
		found[vm] = s
	}
	return found
}
