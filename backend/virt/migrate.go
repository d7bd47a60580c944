package virt

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/digitalocean/go-libvirt"

	"drystone.example/drystone/backend/model"
)

// A live migration is five calls of libvirt's third protocol, of which each side makes
// its own: Depart (begin), Arrive (prepare), Send (perform), and the two Ends (finish,
// confirm). What one answers with is given to the next, by whoever carries it between
// the nodes. QEMU listens and connects at UNIX sockets; what joins them is not looked
// into here.
//
// Of both sides libvirt remembers the connection: when that ends before the
// migration has, it is called off. So each side keeps a session of its own.

// The flags of every migration.
const migrateFlags = libvirt.MigratePersistDest | libvirt.MigrateUndefineSource

// copyFlags says how a guest's memory is copied. The invariant: what the guest has at its
// new node is byte for byte what it had when it was put to rest. With KVM that holds while
// the guest runs. A guest that is emulated rests from the beginning: QEMU before 9.0
// forgets to watch a page again that it has copied ("physmem: Fix migration dirty bitmap
// coherency with TCG memory access" is the cure), and most guests arrived with pieces of
// old memory in their kernels, of which they hung, crashed or went wrong later.
func copyFlags(a Accelerator) libvirt.DomainMigrateFlags {
	if a == KVM {
		return migrateFlags | libvirt.MigrateLive | libvirt.MigrateAutoConverge
	}
	return migrateFlags
}

// How long a side waits for libvirt. Sending has no time of its own: its context ends
// it.
const (
	arriveWait   = 2 * time.Minute
	progressTime = time.Second
)

func param(name, value string) libvirt.TypedParam {
	return libvirt.TypedParam{Field: name, Value: *libvirt.NewTypedParamValueString(value)}
}

// Describe makes libvirt's description of a machine as it would run on this node.
func (h *Hypervisor) Describe(d Domain) (string, error) {
	if err := d.validate(); err != nil {
		return "", text(err, "describe machine %s", d.ID)
	}
	return h.xml(d)
}

// A Departure is a guest of this node on its way to another. It is for one goroutine.
type Departure struct {
	h  *Hypervisor
	vm model.VMID
	s  *session

	there string // the machine on the other node

	// Domain and Cookie are for the other node's Arrive.
	Domain string
	Cookie []byte
}

// Depart begins the migration of a running guest to a node that describes it as there
// says. Nothing changes for the guest yet. The Departure is ended by End, or called
// off by Close.
func (h *Hypervisor) Depart(ctx context.Context, vm model.VMID, there string) (*Departure, error) {
	have, err := h.described(ctx, vm)
	if err != nil {
		return nil, text(err, "begin to migrate machine %s", vm)
	}
	if there, err = inOrderOf(have, there); err != nil {
		return nil, text(err, "begin to migrate machine %s", vm)
	}
	s, err := connect(ctx, h.socket)
	if err != nil {
		return nil, err
	}
	d := &Departure{h: h, vm: vm, s: s, there: there}
	err = d.call(ctx, monitorWait, func(l *libvirt.Libvirt) (err error) {
		d.Cookie, d.Domain, err = l.DomainMigrateBegin3Params(domain(vm), []libvirt.TypedParam{
			param(libvirt.MigrateParamDestXML, there), param(libvirt.MigrateParamPersistXML, there),
		}, uint32(copyFlags(h.accel)))
		return err
	})
	if err != nil {
		s.close()
		return nil, text(err, "begin to migrate machine %s", vm)
	}
	return d, nil
}

func (d *Departure) call(ctx context.Context, limit time.Duration, f func(*libvirt.Libvirt) error) error {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	return d.s.call(ctx, f)
}

// Send copies the guest's memory, as copyFlags says, and leaves the guest at rest. QEMU
// connects to the socket. cookie is the Arrival's. progress is called each second with the bytes sent, and those there are by
// present knowledge, which grow while the guest writes. If ctx ends first the
// migration is given up; after any error the guest runs on once End is called.
func (d *Departure) Send(ctx context.Context, cookie []byte, socket string,
	progress func(done, total model.Bytes),
) ([]byte, error) {
	var out []byte
	sent := make(chan error, 1)
	go func() { // ends with the migration, which ctx or the session's end can end
		sent <- d.call(context.WithoutCancel(ctx), 0, func(l *libvirt.Libvirt) (err error) {
			out, err = l.DomainMigratePerform3Params(domain(d.vm), nil, []libvirt.TypedParam{
				param(libvirt.MigrateParamDestName, domainName(d.vm)), param(libvirt.MigrateParamDestXML, d.Domain),
				param(libvirt.MigrateParamPersistXML, d.there), param(libvirt.MigrateParamURI, "unix://"+socket),
			}, cookie, copyFlags(d.h.accel))
			return err
		})
	}()
	tick := time.NewTicker(progressTime)
	defer tick.Stop()
	for {
		select {
		case err := <-sent:
			return out, text(err, "migrate machine %s", d.vm)
		case <-tick.C:
			if done, total, err := d.progress(ctx); err == nil && progress != nil {
				progress(done, total)
			}
		case <-ctx.Done():
			return out, d.abort(ctx, sent)
		}
	}
}

// abort gives the sending up, and waits until it has ended; nil says that it had come
// to its end before.
func (d *Departure) abort(ctx context.Context, sent <-chan error) error {
	err := d.h.do(context.WithoutCancel(ctx), monitorWait, func(l *libvirt.Libvirt) error {
		return l.DomainAbortJob(domain(d.vm))
	})
	hung := time.AfterFunc(monitorWait, func() { _ = d.s.conn.Close() }) // libvirt cleans up after the session
	defer hung.Stop()
	if <-sent == nil {
		return nil
	}
	if err != nil {
		d.h.log.Warn("migration was not aborted politely", "vm", d.vm, "err", err)
	}
	return fmt.Errorf("migrate machine %s: %w", d.vm, context.Cause(ctx))
}

func (d *Departure) progress(ctx context.Context) (done, total model.Bytes, err error) {
	err = d.h.do(ctx, statsWait, func(l *libvirt.Libvirt) error {
		_, params, err := l.DomainGetJobStats(domain(d.vm), 0)
		for _, p := range params {
			n, ok := p.Value.I.(uint64)
			switch {
			case !ok:
			case p.Field == libvirt.DomainJobMemoryProcessed:
				done += model.Bytes(n)
				total += model.Bytes(n)
			case p.Field == libvirt.DomainJobMemoryRemaining:
				total += model.Bytes(n)
			}
		}
		return err
	})
	return done, total, err
}

// End confirms how the migration ended: moved, and then the QEMU of this node is gone,
// or not, and then the guest runs on here. cookie is what the Arrival's End answered.
func (d *Departure) End(ctx context.Context, cookie []byte, moved bool) error {
	defer d.Close()
	return text(d.call(ctx, startWait, func(l *libvirt.Libvirt) error {
		return l.DomainMigrateConfirm3Params(domain(d.vm), nil, cookie, uint32(copyFlags(d.h.accel)), cancelled(moved))
	}), "end the migration of machine %s", d.vm)
}

// Close ends the session; a migration that has not ended is called off by libvirt.
func (d *Departure) Close() { d.s.close() }

func cancelled(moved bool) int32 {
	if moved {
		return 0
	}
	return 1
}

// An Arrival is a guest of another node on its way here. It is for one goroutine.
type Arrival struct {
	h  *Hypervisor
	vm model.VMID
	s  *session
	in string // libvirt's description

	// Cookie is for the other node's Send.
	Cookie []byte
}

// Arrive starts a QEMU that waits for a guest's memory at a socket. Its disks must be
// served; their rings begin to run only at End.
func (h *Hypervisor) Arrive(ctx context.Context, d Domain, in string, cookie []byte, socket string) (*Arrival, error) {
	if err := d.validate(); err != nil {
		return nil, text(err, "receive machine %s", d.ID)
	}
	if err := d.ready(); err != nil {
		return nil, text(err, "receive machine %s", d.ID)
	}
	if err := h.makeFolder(d.ID); err != nil {
		return nil, text(err, "receive machine %s", d.ID)
	}
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("receive machine %s: %w", d.ID, err)
	}
	s, err := connect(ctx, h.socket)
	if err != nil {
		return nil, err
	}
	a := &Arrival{h: h, vm: d.ID, s: s, in: in}
	ctx, cancel := context.WithTimeout(ctx, arriveWait)
	defer cancel()
	err = s.call(ctx, func(l *libvirt.Libvirt) (err error) {
		a.Cookie, _, err = l.DomainMigratePrepare3Params([]libvirt.TypedParam{
			param(libvirt.MigrateParamDestName, domainName(d.ID)), param(libvirt.MigrateParamDestXML, in),
			param(libvirt.MigrateParamURI, "unix://"+socket),
		}, cookie, uint32(migrateFlags))
		return err
	})
	if err != nil {
		a.Close()
		return nil, text(err, "receive machine %s", d.ID)
	}
	return a, nil
}

// End lets the guest run here, if it has moved, or forgets it. cookie is what Send
// answered with; without it only figures are lost.
func (a *Arrival) End(ctx context.Context, cookie []byte, moved bool) (out []byte, err error) {
	defer a.Close()
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	err = a.s.call(ctx, func(l *libvirt.Libvirt) (err error) {
		_, out, err = l.DomainMigrateFinish3Params([]libvirt.TypedParam{
			param(libvirt.MigrateParamDestName, domainName(a.vm)), param(libvirt.MigrateParamDestXML, a.in),
		}, cookie, uint32(migrateFlags), cancelled(moved))
		return err
	})
	return out, text(err, "end the arrival of machine %s", a.vm)
}

// Close ends the session; libvirt ends a QEMU that still waits.
func (a *Arrival) Close() { a.s.close() }

// Resume lets a guest run on that libvirt put to rest for a migration nobody ended.
func (h *Hypervisor) Resume(ctx context.Context, vm model.VMID) error {
	return text(h.do(ctx, monitorWait, func(l *libvirt.Libvirt) error {
		return l.DomainResume(domain(vm))
	}), "resume machine %s", vm)
}
