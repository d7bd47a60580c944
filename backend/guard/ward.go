package guard

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/proc"
)

// rescan is how often, after the deadline, the guard looks for guests that have
// appeared since: libvirt may have been starting one.
const rescan = time.Second

// A ward is the guests under guard and the deadline they live by.
type ward struct {
	pids   string
	margin time.Duration
	log    *slog.Logger
	timer  *os.File // a timerfd on CLOCK_BOOTTIME
	done   sync.WaitGroup

	mu       sync.Mutex // guards all below; only quick system calls on held descriptors under it
	deadline Boottime
	guests   map[proc.ID]*held
	killed   int
}

// held is a guest's process, held by pidfd.
type held struct {
	*proc.Handle
	vm     model.VMID
	killed bool // it may take a moment to be dead
}

// newWard starts to guard the guests that run now.
func newWard(cfg Config, deadline Boottime) (*ward, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make timer: %w", err)
	}
	w := &ward{
		pids: cfg.PIDs, margin: cfg.Margin, log: cfg.Log,
		timer:    os.NewFile(uintptr(fd), "timerfd"),
		deadline: deadline,
		guests:   map[proc.ID]*held{},
	}
	guests, err := w.find()
	if err != nil {
		return nil, errors.Join(err, w.timer.Close())
	}
	w.done.Go(w.watch)
	w.adopt(guests)
	w.mu.Lock()
	err = w.arm() // also if there was no guest to do so
	w.mu.Unlock()
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// close stops watching. Guests run on.
func (w *ward) close() {
	_ = w.timer.Close()
	w.done.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.guests {
		h.Close()
	}
	clear(w.guests)
}

func (w *ward) find() ([]proc.Guest, error) {
	if w.pids == "" {
		return nil, nil
	}
	return proc.Guests(w.pids)
}

// adopt registers guests that somebody else found; those that are dead are passed
// over.
func (w *ward) adopt(guests []proc.Guest) {
	for _, g := range guests {
		if err := w.register(g); err != nil {
			w.log.Warn("cannot guard a guest", "vm", g.VM, "pid", g.PID, "err", err)
		}
	}
}

// register puts a guest under guard. If there has never been a deadline it is now.
func (w *ward) register(g proc.Guest) error {
	if g.VM == 0 || g.PID <= 1 || g.Start == 0 {
		return model.Errorf(model.Invalid, "a guest has an identifier, a process and its start")
	}
	h, err := proc.Open(g.ID)
	if model.CodeOf(err) == model.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.guests[g.ID]; known {
		h.Close()
		return nil
	}
	w.guests[g.ID] = &held{Handle: h, vm: g.VM}
	if w.deadline == 0 {
		w.deadline = Now()
	}
	return w.arm()
}

// forget takes a guest from under guard.
func (w *ward) forget(vm model.VMID) {
	w.drop(func(h *held) bool { return h.vm == vm })
}

// prune lets go of the dead.
func (w *ward) prune() {
	w.drop(func(h *held) bool { return h.Dead() })
}

func (w *ward) drop(which func(*held) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, h := range w.guests {
		if which(h) {
			h.Close()
			delete(w.guests, id)
		}
	}
}

// renew moves the deadline, never back, and returns where it is.
func (w *ward) renew(deadline Boottime) (Boottime, error) {
	if deadline > Now().Add(MaxLease) {
		return 0, model.Errorf(model.Invalid,
			"a lease of %v is too long; the most is %v", deadline.Sub(Now()), MaxLease)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deadline = max(w.deadline, deadline)
	return w.deadline, w.arm()
}

// arm sets the timer to when guests must die. mu is held.
func (w *ward) arm() error {
	if w.deadline == 0 {
		return nil
	}
	at := unix.NsecToTimespec(int64(w.deadline.Add(w.margin)))
	spec := unix.ItimerSpec{Value: at, Interval: unix.NsecToTimespec(int64(rescan))}
	var err error
	raw, rawErr := w.timer.SyscallConn()
	if rawErr != nil {
		return fmt.Errorf("set timer: %w", rawErr)
	}
	if rawErr := raw.Control(func(fd uintptr) {
		err = unix.TimerfdSettime(int(fd), unix.TFD_TIMER_ABSTIME, &spec, nil)
	}); rawErr != nil {
		err = rawErr
	}
	if err != nil {
		return fmt.Errorf("set timer: %w", err)
	}
	return nil
}

// watch kills when the timer says so, until the timer is closed.
func (w *ward) watch() {
	var ticks [8]byte
	for {
		if _, err := w.timer.Read(ticks[:]); err != nil {
			return
		}
		w.reap()
		guests, err := w.find() // from disk: only after those known are dead
		if err != nil {
			w.log.Warn("cannot look for more guests", "err", err)
			continue
		}
		if len(guests) > 0 && w.expired() {
			w.adopt(guests)
			w.reap()
		}
	}
}

// expired reports whether guests must be dead now. mu is not held.
func (w *ward) expired() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.overdue() >= 0
}

// overdue is how long ago guests should have been killed; negative: not yet. mu is
// held.
func (w *ward) overdue() time.Duration {
	if w.deadline == 0 {
		return -1
	}
	return Now().Sub(w.deadline.Add(w.margin))
}

// reap kills all guests if it is time.
func (w *ward) reap() {
	w.mu.Lock()
	late := w.overdue()
	var doomed []*held
	if late >= 0 {
		for _, h := range w.guests {
			doomed = append(doomed, h)
		}
	}
	w.mu.Unlock()
	killed := doomed[:0]
	for _, h := range doomed { // all of them, before a word is said of any
		if h.Dead() || h.Kill() != nil { // a kill fails if it was forgotten meanwhile
			continue
		}
		w.mu.Lock()
		again := h.killed
		h.killed = true
		if !again {
			w.killed++
		}
		w.mu.Unlock()
		if !again {
			killed = append(killed, h)
		}
	}
	for _, h := range killed {
		w.log.Error("killed a guest: the lease of its node ran out",
			"vm", h.vm, "pid", h.ID().PID, "late", late)
	}
	w.prune()
}

// status says what is guarded now.
func (w *ward) status() (Status, error) {
	self, err := proc.Of(os.Getpid())
	if err != nil {
		return Status{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s := Status{Process: self, Deadline: w.deadline, Killed: w.killed, Guests: []proc.Guest{}}
	for id, h := range w.guests {
		if !h.Dead() {
			s.Guests = append(s.Guests, proc.Guest{VM: h.vm, ID: id})
		}
	}
	return s, nil
}
