// Package powerfs is a file system that loses what was not synced when its power is
// cut, for tests with real processes. It is mounted by FUSE (root, no fusermount) and
// keeps in memory what a program has written and not made durable; the rest lies in
// files of a folder.
//
// Durable is only what POSIX promises to a strict reader: the bytes of a write with
// RWF_DSYNC or O_DSYNC and the size they need; the bytes and the size of a file after
// fsync or fdatasync of that file; the names in a directory after fsync of that
// directory. A file that was synced in a directory that was not has no name. Of what is
// not durable a cut keeps all, none, or a random part: each 512 bytes by themselves, so
// that writes are torn; the sizes of files; of the names in a directory the first
// changes and not the last, for a file system may be late but keeps that order.
// Owners and permissions are always kept.
//
// A cut hits all drives of a rack at one instant. From then on nothing becomes durable
// and no call returns; what arrives until the processes are dead may survive in
// part, as it may on a disk that was writing when its power failed.
package powerfs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Keep is how much survives of what was not durable, in per cent, on average.
type Keep int

// The extremes.
const (
	Nothing    Keep = 0
	Everything Keep = 100
)

// A Lie is what drives say they have made durable though they have not.
type Lie uint32

// The lies; they may be added.
const (
	LieOfWrites Lie = 1 << iota // RWF_DSYNC and O_DSYNC
	LieOfFiles                  // fsync and fdatasync of files
	LieOfNames                  // fsync of directories
)

// A Rack is drives that have one power supply. Cut, Off and On are called in turn, by
// one goroutine.
type Rack struct {
	dir    string
	rng    *rand.Rand
	life   *life
	drives []*drive
}

// A drive is a mounted tree.
type drive struct {
	at     string
	tree   *tree
	server *fuse.Server
}

// New makes a rack that keeps what is durable in a folder, which it owns.
func New(dir string, seed uint64) *Rack {
	rng := rand.New(rand.NewPCG(seed, 0x706f776572)) //nolint:gosec // a seed must give the same again
	return &Rack{dir: dir, rng: rng, life: newLife()}
}

// Mount puts an empty drive into the rack and mounts it at a directory.
func (r *Rack) Mount(at string) error {
	back := filepath.Join(r.dir, fmt.Sprintf("drive%d", len(r.drives)+1))
	if err := os.MkdirAll(back, 0o700); err != nil {
		return fmt.Errorf("make drive: %w", err)
	}
	d := &drive{at: at, tree: newTree(back, r.life)}
	if err := d.mount(); err != nil {
		return err
	}
	r.drives = append(r.drives, d)
	return nil
}

// Lie makes all drives lie from now on, until the next On.
func (r *Rack) Lie(l Lie) { r.life.lie.Store(uint32(l)) }

// Cut cuts the power. Every process that uses a drive has to be killed then, which is
// complete when Off was called.
func (r *Rack) Cut() {
	r.life.mu.Lock()
	defer r.life.mu.Unlock()
	r.life.cut = true
}

// Off ends the calls that wait since the cut, with EIO, so that killed processes
// can end.
func (r *Rack) Off() { close(r.life.off) }

// On decides what has survived and mounts it where it was. No process may use the
// drives any more.
func (r *Rack) On(k Keep) error {
	r.life = newLife()
	for _, d := range r.drives {
		if err := d.unmount(); err != nil {
			return err
		}
		tree, err := d.tree.survive(r.life, r.rng, k)
		if err != nil {
			return fmt.Errorf("restore %s: %w", d.at, err)
		}
		d.tree = tree
		if err := d.mount(); err != nil {
			return err
		}
	}
	return nil
}

// Close unmounts the drives. What is in the folder is of no use after it.
func (r *Rack) Close() error {
	var errs []error
	for _, d := range r.drives {
		errs = append(errs, d.unmount(), d.tree.close())
	}
	r.drives = nil
	return errors.Join(errs...)
}

// The largest request, and how many the kernel has under way by itself.
const (
	requestMax    = 1 << 20
	backgroundMax = 64
)

func (d *drive) mount() (err error) {
	d.server, err = fuse.NewServer(&calls{RawFileSystem: fuse.NewDefaultRawFileSystem(), t: d.tree}, d.at,
		&fuse.MountOptions{
			DirectMountStrict: true, FsName: "powerfs", Name: "powerfs", MaxWrite: requestMax,
			MaxBackground: backgroundMax, DisableXAttrs: true, DisableReadDirPlus: true, DisableSplice: true,
		})
	if err != nil {
		return fmt.Errorf("mount %s: %w", d.at, err)
	}
	go d.server.Serve() // until unmount, which waits
	if err := d.server.WaitMount(); err != nil {
		return errors.Join(fmt.Errorf("mount %s: %w", d.at, err), d.unmount())
	}
	return nil
}

func (d *drive) unmount() error {
	if err := d.server.Unmount(); err != nil {
		return fmt.Errorf("unmount %s: %w", d.at, err)
	}
	return nil
}

// A life is the time between power on and power off.
type life struct {
	lie atomic.Uint32
	off chan struct{} // closed when nobody needs an answer any more

	mu  sync.RWMutex // held for reading while something becomes durable
	cut bool
}

func newLife() *life { return &life{off: make(chan struct{})} }

// answer makes something durable, if that is asked for, and lets a call return. After
// a cut it does neither.
func (l *life) answer(durable func() fuse.Status) fuse.Status {
	l.mu.RLock()
	if !l.cut {
		defer l.mu.RUnlock()
		if durable != nil {
			return durable()
		}
		return fuse.OK
	}
	l.mu.RUnlock()
	<-l.off
	return fuse.EIO
}

// sync is answer for what a drive may lie about.
func (l *life) sync(about Lie, durable func() fuse.Status) fuse.Status {
	if Lie(l.lie.Load())&about != 0 {
		durable = nil
	}
	return l.answer(durable)
}
