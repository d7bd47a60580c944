package virt

import (
	"context"
	"time"

	"github.com/digitalocean/go-libvirt"

	"drystone.example/drystone/backend/model"
)

// Run keeps listening for events, through every restart of libvirtd, until ctx
// ends; it returns nil then, with the idle connections closed. The other methods do
// not need it.
func (h *Hypervisor) Run(ctx context.Context) error {
	defer h.Close()
	retry := retryMin
	for ctx.Err() == nil {
		began := time.Now()
		err := h.listen(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > retryMax {
			retry = retryMin
			h.log.Warn("lost libvirt", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
		retry = min(2*retry, retryMax)
	}
	return nil
}

// Events delivers what Run hears. One reader.
func (h *Hypervisor) Events() <-chan Event { return h.events }

// listen follows one connection until it is lost or ctx ends.
func (h *Hypervisor) listen(ctx context.Context) error {
	dial, cancel := context.WithTimeout(ctx, quickWait)
	s, err := connect(dial, h.socket)
	cancel()
	if err != nil {
		return err
	}
	defer s.close()
	// The stream's own context never ends: the connection does.
	var stream <-chan libvirt.DomainEventLifecycleMsg
	register, cancel := context.WithTimeout(ctx, quickWait)
	err = s.call(register, func(l *libvirt.Libvirt) error {
		stream, err = l.LifecycleEvents(context.WithoutCancel(ctx))
		return err
	})
	cancel()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.conn.Close() })
	defer stop()
	h.tell(ctx, Event{Resync: true})
	for msg := range stream { // ends with the connection
		if e, ours := eventOf(msg); ours {
			h.tell(ctx, e)
		}
	}
	return model.Errorf(model.Unavailable, "the connection to libvirt was lost")
}

// tell hands an event to the reader, or, if that is slow, makes the last one say
// that some were missed.
func (h *Hypervisor) tell(ctx context.Context, e Event) {
	select {
	case h.events <- e:
		return
	default:
	}
	for {
		select {
		case <-h.events: // makes room; the reader will look at everything anyway
		default:
		}
		select {
		case h.events <- Event{Resync: true}:
			return
		case <-ctx.Done():
			return
		default:
		}
	}
}

// The details of libvirt's lifecycle events, by their number.
var (
	startedDetails = []string{"booted", "migrated", "restored", "from_snapshot", "wakeup"}
	stoppedDetails = []string{
		"shutdown", "destroyed", "crashed", "migrated", "saved", "failed", "from_snapshot",
	}
)

// eventOf translates an event of libvirt, if it is about a machine of ours and
// changes its state.
func eventOf(msg libvirt.DomainEventLifecycleMsg) (Event, bool) {
	vm, ours := vmOf(msg.Dom.Name)
	e := Event{VM: vm}
	word := func(words []string) string {
		if msg.Detail < 0 || int(msg.Detail) >= len(words) {
			return ""
		}
		return words[msg.Detail]
	}
	switch libvirt.DomainEventType(msg.Event) {
	case libvirt.DomainEventStarted:
		e.State, e.Reason = Running, word(startedDetails)
	case libvirt.DomainEventResumed:
		e.State, e.Reason = Running, "unpaused"
	case libvirt.DomainEventSuspended, libvirt.DomainEventPmsuspended:
		e.State = Paused
	case libvirt.DomainEventShutdown:
		e.State = Stopping
	case libvirt.DomainEventStopped:
		e.State, e.Reason = Stopped, word(stoppedDetails)
	case libvirt.DomainEventCrashed:
		e.State = Crashed
	case libvirt.DomainEventDefined, libvirt.DomainEventUndefined:
		return Event{}, false
	default:
		return Event{}, false
	}
	return e, ours
}
