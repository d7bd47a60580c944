package powerfs

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
)

const (
	sectorSize = 512
	pageSize   = 4096
	perPage    = pageSize / sectorSize
)

// A contents is what is in one file.
type contents struct {
	mu     sync.Mutex
	back   *os.File // what is durable
	stable int64    // how long that is
	size   int64    // as programs see it
	// floor is the least that size was since the last sync: what back has beyond it
	// was truncated, and reads as zeros.
	floor int64
	fresh map[int64]*page // what is not durable, by number
}

// A page is some sectors of a file.
type page struct {
	data  [pageSize]byte
	dirty uint8 // a bit for each sector it has
}

func newContents(path string) (*contents, error) {
	back, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_EXCL, 0o600) //nolint:gosec // in the folder of the rack
	if err != nil {
		return nil, fmt.Errorf("make file: %w", err)
	}
	return &contents{back: back, fresh: map[int64]*page{}}, nil
}

func (c *contents) length() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.size
}

// read fills p from an offset and returns how much there was.
func (c *contents) read(p []byte, off int64) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := int(min(int64(len(p)), max(0, c.size-off)))
	return n, c.load(p[:n], off)
}

// load is read of what is not beyond the end.
func (c *contents) load(p []byte, off int64) error {
	clear(p)
	if have := min(c.floor-off, int64(len(p))); have > 0 {
		if _, err := c.back.ReadAt(p[:have], off); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	for at := off / sectorSize; at*sectorSize < off+int64(len(p)); at++ {
		pg := c.fresh[at/perPage]
		if pg == nil {
			at |= perPage - 1
			continue
		}
		if pg.dirty&(1<<(at%perPage)) == 0 {
			continue
		}
		in := at % perPage * sectorSize
		sector := pg.data[in : in+sectorSize]
		if skip := off - at*sectorSize; skip > 0 {
			copy(p, sector[skip:])
		} else {
			copy(p[-skip:], sector)
		}
	}
	return nil
}

// write takes in what is not durable yet.
func (c *contents) write(p []byte, off int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	end := off + int64(len(p))
	for at := off / sectorSize; at*sectorSize < end; at++ {
		from, to := max(off, at*sectorSize), min(end, (at+1)*sectorSize)
		pg := c.fresh[at/perPage]
		if pg == nil {
			pg = &page{}
			c.fresh[at/perPage] = pg
		}
		in := at % perPage * sectorSize
		bit := uint8(1) << (at % perPage)
		if to-from < sectorSize && pg.dirty&bit == 0 {
			if err := c.load(pg.data[in:in+sectorSize], at*sectorSize); err != nil {
				return err
			}
		}
		pg.dirty |= bit
		copy(pg.data[in+from-at*sectorSize:], p[from-off:to-off])
	}
	c.size = max(c.size, end)
	return nil
}

// truncate sets the size.
func (c *contents) truncate(size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for number, pg := range c.fresh {
		switch at := number * pageSize; {
		case at >= size:
			delete(c.fresh, number)
		case at+pageSize > size:
			clear(pg.data[size-at:])
			whole := (size - at + sectorSize - 1) / sectorSize
			pg.dirty &= 1<<whole - 1
		}
	}
	c.size, c.floor = size, min(c.floor, size)
}

// grow makes the file at least that long.
func (c *contents) grow(size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.size = max(c.size, size)
}

// sync makes durable what is in [from, to), and the size.
func (c *contents) sync(from, to int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.settle(); err != nil {
		return err
	}
	first, last := from/pageSize, (min(to, c.size)-1)/pageSize
	if last-first < int64(len(c.fresh)) {
		for number := first; number <= last; number++ {
			if err := c.flush(number, from, to, always); err != nil {
				return err
			}
		}
		return nil
	}
	for number := range c.fresh {
		if err := c.flush(number, from, to, always); err != nil {
			return err
		}
	}
	return nil
}

// settle makes the size durable.
func (c *contents) settle() error {
	if c.floor < c.stable {
		if err := c.back.Truncate(c.floor); err != nil {
			return err
		}
	}
	if c.size != c.floor || c.floor != c.stable {
		if err := c.back.Truncate(c.size); err != nil {
			return err
		}
	}
	c.stable, c.floor = c.size, c.size
	return nil
}

func always() bool { return true }

// flush moves the sectors of a page that overlap [from, to) to what is durable, those
// that are chosen.
func (c *contents) flush(number, from, to int64, choose func() bool) error {
	pg := c.fresh[number]
	if pg == nil {
		return nil
	}
	at := number * pageSize
	for s := int64(0); s < perPage; s++ {
		begin := at + s*sectorSize
		if pg.dirty&(1<<s) == 0 || begin >= to || begin+sectorSize <= from || !choose() {
			continue
		}
		end := s + 1 // of what goes in one call
		for ; end < perPage && pg.dirty&(1<<end) != 0 && at+end*sectorSize < to && choose(); end++ {
		}
		p := pg.data[s*sectorSize : end*sectorSize]
		p = p[:max(0, min(int64(len(p)), c.stable-begin))]
		if _, err := c.back.WriteAt(p, begin); err != nil {
			return err
		}
		for ; s < end; s++ {
			pg.dirty &^= 1 << s
		}
	}
	if pg.dirty == 0 {
		delete(c.fresh, number)
	}
	return nil
}

// survive decides what is left after a loss of power, and forgets the rest.
func (c *contents) survive(rng *rand.Rand, k Keep) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	chosen := func() bool { return rng.IntN(100) < int(k) }
	if chosen() {
		if err := c.settle(); err != nil {
			return err
		}
	} else {
		c.size, c.floor = c.stable, c.stable
	}
	for _, number := range slices.Sorted(maps.Keys(c.fresh)) { // the order of a seed
		if err := c.flush(number, 0, c.size, chosen); err != nil {
			return err
		}
	}
	clear(c.fresh)
	return nil
}
