package vhost

import (
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/model"
)

// logPage is what one bit of the dirty log stands for.
const logPage = 4096

var (
	errOutside = model.Errorf(model.Invalid, "an address outside of the guest's memory")
	errFault   = model.Errorf(model.Invalid, "guest memory that cannot be touched")
)

// A region is guest memory as QEMU describes it.
type region struct {
	guest  uint64 // physical address in the guest
	size   uint64
	user   uint64 // address in QEMU, which ring addresses use
	offset uint64 // in the file
}

// A mapping is a region mapped into this process.
type mapping struct {
	region
	data []byte
}

// A memory is everything a session shares with QEMU: the guest's memory, the log
// of what was written to it, and the record of requests in flight.
//
// Who touches any of it holds mu for reading, and only for the touch, never
// while a request is in the Device; so that taking memory away, which holds mu
// for writing, waits for no device. Touching goes through methods that turn a
// fault into an error.
type memory struct {
	mu       sync.RWMutex // guards what follows, and everything that is mapped
	regions  []mapping    // by guest address
	version  uint64       // of regions; rings look their addresses up again when it moves
	log      []byte
	logging  bool // VHOST_F_LOG_ALL
	inflight inflightRegion
}

// caught turns a fault on mapped memory into an error. It is used as
//
//	defer caught(&err, debug.SetPanicOnFault(true))
//
// after the locks were taken, so that they are released after it.
func caught(err *error, old bool) {
	debug.SetPanicOnFault(old)
	switch r := recover().(type) {
	case nil:
	case interface{ Addr() uintptr }: // what the runtime panics with on a fault
		*err = errFault
	default:
		*err = fmt.Errorf("panic while touching guest memory: %v\n%s", r, debug.Stack())
	}
}

// mapRegion maps a region that no other is compared with yet.
func mapRegion(r region, fd int) (mapping, error) {
	if err := r.check(); err != nil {
		return mapping{}, err
	}
	data, err := mapFile(fd, r.offset, r.size)
	if err != nil {
		return mapping{}, fmt.Errorf("map the guest's memory: %w", err)
	}
	return mapping{region: r, data: data}, nil
}

// insert puts a mapping in its place among those that it does not overlap.
func insert(regions []mapping, added mapping) ([]mapping, error) {
	for i := range regions {
		if regions[i].overlaps(added.region) {
			return nil, model.Errorf(model.Invalid, "memory regions that overlap")
		}
	}
	at, _ := slices.BinarySearchFunc(regions, added.guest, byGuest)
	return slices.Insert(regions, at, added), nil
}

// replace puts other regions in the place of all. A running ring sees the old
// ones or the new ones, never none.
func (m *memory) replace(regions []region, files []int) error {
	var young []mapping
	for i, r := range regions {
		added, err := mapRegion(r, files[i])
		if err != nil {
			return errors.Join(err, unmap(young))
		}
		grown, err := insert(young, added)
		if err != nil {
			return errors.Join(err, unix.Munmap(added.data), unmap(young))
		}
		young = grown
	}
	m.mu.Lock()
	old := m.regions
	m.regions = young
	m.version++
	m.mu.Unlock()
	return unmap(old)
}

func unmap(regions []mapping) error {
	var errs []error
	for i := range regions {
		errs = append(errs, unix.Munmap(regions[i].data))
	}
	return errors.Join(errs...)
}

// setLog replaces the dirty log; data nil takes it away.
func (m *memory) setLog(data []byte) error {
	m.mu.Lock()
	old := m.log
	m.log = data
	m.mu.Unlock()
	if old == nil {
		return nil
	}
	return unix.Munmap(old)
}

// setLogging turns the log on or off. When it returns, every later write to the
// guest's memory is logged, or none.
func (m *memory) setLogging(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.logging = on
}

func (m *memory) isLogging() bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.logging
}

// close unmaps everything.
func (m *memory) close() error {
	return errors.Join(m.replace(nil, nil), m.setLog(nil), m.setInflight(nil, inflightShape{}))
}

func byGuest(m mapping, guest uint64) int {
	switch {
	case m.guest < guest:
		return -1
	case m.guest > guest:
		return 1
	}
	return 0
}

func (r region) check() error {
	const page = logPage - 1
	switch {
	case r.size == 0 || r.size > math.MaxInt64:
		return model.Errorf(model.Invalid, "a memory region of %d bytes", r.size)
	case (r.guest|r.size|r.user|r.offset)&page != 0:
		return model.Errorf(model.Invalid, "a memory region that is not whole pages")
	case r.guest+r.size < r.guest, r.user+r.size < r.user, r.offset+r.size < r.offset:
		return model.Errorf(model.Invalid, "a memory region beyond the address space")
	}
	return nil
}

func (r region) overlaps(o region) bool {
	apart := func(a, b uint64) bool { return a+r.size <= b || b+o.size <= a }
	return !apart(r.guest, o.guest) || !apart(r.user, o.user)
}

// mapFile maps a part of a file that is memory. The file may shrink later: that
// is a fault, which who touches the memory survives.
func mapFile(fd int, offset, size uint64) ([]byte, error) {
	var info unix.Stat_t
	if err := unix.Fstat(fd, &info); err != nil {
		return nil, err
	}
	if info.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, model.Errorf(model.Invalid, "shared memory that is not a file")
	}
	if size == 0 || size > math.MaxInt64 || offset > math.MaxInt64 ||
		offset+size > uint64(info.Size) {
		return nil, model.Errorf(model.Invalid, "%d bytes at %d of a file of %d",
			size, offset, info.Size)
	}
	data, err := unix.Mmap(fd, int64(offset), int(size),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	_ = unix.Madvise(data, unix.MADV_DONTDUMP) // a wish: guests do not belong in our cores
	return data, nil
}

// at returns what of n bytes at a guest address lies together, which is nothing
// if the address is outside.
func (m *memory) at(guest, n uint64) []byte {
	i, ok := slices.BinarySearchFunc(m.regions, guest, byGuest)
	if !ok {
		if i == 0 {
			return nil
		}
		i--
	}
	r := &m.regions[i]
	off := guest - r.guest
	if off >= r.size {
		return nil
	}
	return r.data[off:min(r.size, off+min(n, r.size))]
}

// atUser returns n bytes at an address of QEMU's.
func (m *memory) atUser(user, n uint64) ([]byte, error) {
	for i := range m.regions {
		r := &m.regions[i]
		if user >= r.user && user-r.user < r.size && n <= r.size-(user-r.user) {
			return r.data[user-r.user:][:n:n], nil
		}
	}
	return nil, errOutside
}

// A segment is a part of a request's data in the guest's memory.
type segment struct {
	guest uint64
	size  uint32
}

// gather copies guest memory, from skip bytes into the segments on, to p.
func (m *memory) gather(p []byte, segs []segment, skip uint64) error {
	for _, s := range segs {
		if len(p) == 0 {
			return nil
		}
		if skip >= uint64(s.size) {
			skip -= uint64(s.size)
			continue
		}
		guest, left := s.guest+skip, uint64(s.size)-skip
		for skip = 0; left > 0 && len(p) > 0; {
			b := m.at(guest, left)
			if len(b) == 0 {
				return errOutside
			}
			n := copy(p, b)
			p, guest, left = p[n:], guest+uint64(n), left-uint64(n)
		}
	}
	if len(p) > 0 {
		return errOutside
	}
	return nil
}

// scatter copies p to guest memory, from skip bytes into the segments on, and
// logs it.
func (m *memory) scatter(p []byte, segs []segment, skip uint64) error {
	for _, s := range segs {
		if len(p) == 0 {
			return nil
		}
		if skip >= uint64(s.size) {
			skip -= uint64(s.size)
			continue
		}
		guest, left := s.guest+skip, uint64(s.size)-skip
		for skip = 0; left > 0 && len(p) > 0; {
			b := m.at(guest, left)
			if len(b) == 0 {
				return errOutside
			}
			n := copy(b, p)
			if err := m.dirty(guest, uint64(n)); err != nil {
				return err
			}
			p, guest, left = p[n:], guest+uint64(n), left-uint64(n)
		}
	}
	if len(p) > 0 {
		return errOutside
	}
	return nil
}

// dirty logs that n bytes at a guest address were written. It comes after the
// write: QEMU clears the bit before it reads the page.
func (m *memory) dirty(guest, n uint64) error {
	if !m.logging || n == 0 {
		return nil
	}
	for page := guest / logPage; page <= (guest+n-1)/logPage; page++ {
		if page/8 >= uint64(len(m.log)) {
			return model.Errorf(model.Invalid, "a dirty log too short for the guest's memory")
		}
		word := page / 32 * 4
		if word+4 > uint64(len(m.log)) {
			return model.Errorf(model.Invalid, "a dirty log that is not whole words")
		}
		bits := (*uint32)(unsafe.Pointer(&m.log[word])) //nolint:gosec // audited: bounds are above
		atomic.OrUint32(bits, 1<<(page%32))
	}
	return nil
}
