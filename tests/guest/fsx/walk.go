package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
)

// largest is the most bytes of one step.
const largest = 256 << 10

// A file is what the steps are done to.
type file interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Size() (int64, error)
	Sync() error
	// Punch makes a hole that does not change the size.
	Punch(off, n int64) error
	// Zero writes zeros without data, and grows the file as WriteAt does.
	Zero(off, n int64) error
	// Forget drops what is cached, once it is synced.
	Forget() error
}

// A walk is a file, what must be in it, and what was done last.
type walk struct {
	f     file
	rng   *rand.Rand
	limit int
	want  []byte
	trail []string
	steps int
}

func newWalk(f file, seed uint64, limit int) *walk {
	return &walk{f: f, rng: rand.New(rand.NewPCG(seed, 0x667378)), limit: limit} //nolint:gosec // a seed must give the same again
}

// step does one thing.
func (w *walk) step() (err error) {
	w.steps++
	switch n := w.rng.IntN(100); {
	case n < 40:
		err = w.write()
	case n < 70:
		err = w.read()
	case n < 78:
		err = w.truncate()
	case n < 86:
		err = w.punch()
	case n < 92:
		err = w.zero()
	case n < 98:
		w.note("sync")
		err = w.f.Sync()
	default:
		err = w.past()
	}
	if err == nil {
		err = w.measure()
	}
	if err != nil {
		return fmt.Errorf("step %d: %w; before it: %s", w.steps, err, strings.Join(w.trail, ", "))
	}
	return nil
}

// measure looks at the size.
func (w *walk) measure() error {
	size, err := w.f.Size()
	if err == nil && size != int64(len(w.want)) {
		err = fmt.Errorf("the file has %d bytes and must have %d", size, len(w.want))
	}
	return err
}

// note keeps the last steps, to be told when one fails.
func (w *walk) note(format string, args ...any) {
	w.trail = append(w.trail, fmt.Sprintf(format, args...))
	w.trail = w.trail[max(0, len(w.trail)-20):]
}

// span draws a place and a length: any bytes, or whole sectors, blocks or pages, often
// across the end of what there is.
func (w *walk) span() (off, n int) {
	grain := []int{1, 512, 4096, 64 << 10}[w.rng.IntN(4)]
	n = (1 + w.rng.IntN(max(1, min(largest/grain, 16)))) * grain
	if grain == 1 {
		n = 1 + w.rng.IntN(9000)
	}
	most := w.limit - n
	if w.rng.IntN(3) > 0 {
		most = min(most, len(w.want))
	}
	off = w.rng.IntN(most/grain+1) * grain
	return off, n
}

// reach makes the model at least that long.
func (w *walk) reach(n int) {
	if n > len(w.want) {
		w.want = append(w.want, make([]byte, n-len(w.want))...)
	}
}

func (w *walk) write() error {
	off, n := w.span()
	w.note("write %d+%d", off, n)
	w.reach(off + n)
	p := w.want[off : off+n]
	word := w.rng.Uint64()
	for i := range p { // so that a byte says which write it is of, and where
		p[i] = byte(word>>(8*(i%8))) ^ byte((off+i)>>9)
	}
	_, err := w.f.WriteAt(p, int64(off))
	return err
}

func (w *walk) truncate() error {
	off, _ := w.span()
	w.note("truncate %d", off)
	if off < len(w.want) {
		clear(w.want[off:])
		w.want = w.want[:off]
	}
	w.reach(off)
	return w.f.Truncate(int64(off))
}

func (w *walk) punch() error {
	off, n := w.span()
	w.note("punch %d+%d", off, n)
	if off < len(w.want) {
		clear(w.want[off:min(off+n, len(w.want))])
	}
	return w.f.Punch(int64(off), int64(n))
}

func (w *walk) zero() error {
	off, n := w.span()
	w.note("zero %d+%d", off, n)
	w.reach(off + n)
	clear(w.want[off : off+n])
	return w.f.Zero(int64(off), int64(n))
}

func (w *walk) read() error {
	off, n := w.span()
	w.note("read %d+%d", off, n)
	return w.compare(off, n)
}

// past reads the whole file, past the cache.
func (w *walk) past() error {
	w.note("read all past the cache")
	if err := w.f.Sync(); err != nil {
		return err
	}
	if err := w.f.Forget(); err != nil {
		return err
	}
	for off := 0; off <= len(w.want); off += largest {
		if err := w.compare(off, largest); err != nil {
			return err
		}
	}
	return nil
}

// compare reads, and fails unless it finds what must be there, and no more.
func (w *walk) compare(off, n int) error {
	want := w.want[min(off, len(w.want)):min(off+n, len(w.want))]
	got := make([]byte, n)
	have, err := w.f.ReadAt(got, int64(off))
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if have != len(want) {
		return fmt.Errorf("read %d bytes at %d of %d that are there", have, off, len(want))
	}
	if got = got[:have]; !bytes.Equal(got, want) {
		at := 0
		for got[at] == want[at] {
			at++
		}
		return fmt.Errorf("byte %d is %#x and must be %#x", off+at, got[at], want[at])
	}
	return nil
}
