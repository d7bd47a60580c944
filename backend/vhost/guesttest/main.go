// Command guesttest is the only program of the guest that vhost's tests boot. It
// loads the drivers, then writes blocks that say what they are to /dev/vda and
// reads them back, round after round, telling the serial console. A line "done"
// on the console ends it after a last pass over everything.
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/iobuf"
)

// The disk is cut into as many parts as there are writers, each of blocks.
const (
	writers   = 8
	partSize  = 4 << 20
	blockSize = 4096
	readSize  = 64 * blockSize // the most that is read at once
)

func main() {
	if err := run(); err != nil {
		say("error: %v", err)
	}
	time.Sleep(100 * time.Millisecond) // for the serial line
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

// say tells the serial console, on which there is nothing to be done about an
// error.
func say(format string, args ...any) {
	_, _ = fmt.Fprintf(os.Stdout, "guest: "+format+"\n", args...)
}

func run() error {
	for _, m := range []struct{ what, where string }{
		{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"},
	} {
		if err := syscall.Mount(m.what, m.where, m.what, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.where, err)
		}
	}
	modules, err := os.ReadFile("/modules/order")
	if err != nil {
		return err
	}
	for _, name := range bytes.Fields(modules) {
		if err := load(filepath.Join("/modules", string(name))); err != nil {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	disk, err := open("/dev/vda")
	if err != nil {
		return err
	}
	serial, _ := os.ReadFile("/sys/block/vda/serial")
	queues, _ := filepath.Glob("/sys/block/vda/mq/*")
	say("serial=%s queues=%d", bytes.TrimSpace(serial), len(queues))
	var done atomic.Bool
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			if bytes.Equal(bytes.TrimSpace(in.Bytes()), []byte("done")) {
				done.Store(true)
			}
		}
	}()
	return verify(disk, &done)
}

func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if errors.Is(err, unix.EEXIST) {
		err = nil
	}
	return errors.Join(err, f.Close())
}

// open waits for the disk: drivers probe in their own time.
func open(path string) (*os.File, error) {
	for range 200 {
		f, err := os.OpenFile(path, os.O_RDWR|syscall.O_DIRECT, 0)
		if err == nil {
			return f, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, fmt.Errorf("%s does not appear", path)
}

func verify(disk *os.File, done *atomic.Bool) error {
	parts := make([]*part, writers)
	for i := range parts {
		rnd := rand.New(rand.NewPCG(uint64(i), 1))
		parts[i] = &part{disk: disk, index: i, rnd: rnd, into: iobuf.Aligned(readSize)}
	}
	for round := 1; ; round++ {
		last := done.Load()
		errs := make([]error, writers)
		var all sync.WaitGroup
		for i, p := range parts {
			all.Go(func() {
				if last {
					errs[i] = p.check(0, partSize)
				} else {
					errs[i] = p.round()
				}
			})
		}
		all.Wait()
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		if last {
			say("verified")
			return nil
		}
		if err := disk.Sync(); err != nil {
			return fmt.Errorf("sync: %w", err)
		}
		say("round %d", round)
	}
}

// A part is what one writer writes.
type part struct {
	disk    *os.File
	index   int
	rnd     *rand.Rand
	written [partSize / blockSize]uint64 // the stamp of each block, 0 for none
	stamp   uint64

	// into is what is read into, and nothing else writes to it: that it has changed, only
	// the back end can tell QEMU.
	into []byte
}

// round writes some ranges, and reads as many.
func (p *part) round() error {
	for range 8 {
		off := p.rnd.IntN(partSize/blockSize) * blockSize
		n := min((1+p.rnd.IntN(32))*blockSize, partSize-off)
		p.stamp++
		if err := p.write(off, n); err != nil {
			return err
		}
		off = p.rnd.IntN(partSize/blockSize) * blockSize
		if err := p.check(off, min(readSize, partSize-off)); err != nil {
			return err
		}
	}
	return nil
}

func (p *part) write(off, n int) error {
	b := iobuf.Aligned(n)
	for i := 0; i < n; i += blockSize {
		p.fill(b[i:i+blockSize], off+i, p.stamp)
	}
	if _, err := p.disk.WriteAt(b, p.at(off)); err != nil {
		return fmt.Errorf("write %d at %d: %w", n, p.at(off), err)
	}
	for i := 0; i < n; i += blockSize {
		p.written[(off+i)/blockSize] = p.stamp
	}
	return nil
}

func (p *part) at(off int) int64 { return int64(p.index*partSize + off) }

// fill makes the content of the block at off.
func (p *part) fill(b []byte, off int, stamp uint64) {
	for i := 0; i < blockSize; i += 16 {
		binary.LittleEndian.PutUint64(b[i:], uint64(p.at(off))+uint64(i))
		binary.LittleEndian.PutUint64(b[i+8:], stamp)
	}
}

func (p *part) check(off, n int) error {
	for n > readSize {
		if err := p.check(off, readSize); err != nil {
			return err
		}
		off, n = off+readSize, n-readSize
	}
	b, want := p.into[:n], make([]byte, blockSize)
	if _, err := p.disk.ReadAt(b, p.at(off)); err != nil && err != io.EOF {
		return fmt.Errorf("read %d at %d: %w", n, p.at(off), err)
	}
	for i := 0; i < n; i += blockSize {
		stamp := p.written[(off+i)/blockSize]
		if stamp == 0 {
			continue
		}
		if p.fill(want, off+i, stamp); !bytes.Equal(b[i:i+blockSize], want) {
			return fmt.Errorf("block at %d should have stamp %d and has %d", p.at(off+i), stamp,
				binary.LittleEndian.Uint64(b[i+8:]))
		}
	}
	return nil
}
