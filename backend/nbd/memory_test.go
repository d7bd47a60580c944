package nbd

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"sync/atomic"

	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

// hole is the granularity of the holes a memory device keeps.
const hole = int64(model.PageSize)

// A memory is a real Device in memory, with holes.
type memory struct {
	mu    sync.RWMutex // guards what follows
	bytes []byte
	data  []bool // by hole

	size    atomic.Int64
	flushes atomic.Int64
}

func newMemory(size int64) *memory {
	m := &memory{bytes: make([]byte, size), data: make([]bool, (size+hole-1)/hole)}
	m.size.Store(size)
	return m
}

func (m *memory) Size() int64 { return m.size.Load() }

func (m *memory) ReadAt(_ context.Context, p []byte, off int64) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	copy(p, m.bytes[off:])
	return nil
}

func (m *memory) WriteAt(_ context.Context, b *iobuf.Buffer, off int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.bytes[off:], b.Bytes)
	for i := off / hole; i*hole < off+int64(len(b.Bytes)); i++ {
		m.data[i] = true
	}
	return nil
}

func (m *memory) Discard(ctx context.Context, off, n int64) error {
	return m.WriteZeroes(ctx, off, n)
}

func (m *memory) WriteZeroes(_ context.Context, off, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.bytes[off : off+n])
	for i := (off + hole - 1) / hole; (i+1)*hole <= off+n; i++ {
		m.data[i] = false
	}
	return nil
}

func (m *memory) Flush(context.Context) error {
	m.flushes.Add(1)
	return nil
}

func (m *memory) Extents(
	_ context.Context, off, n int64, report func(length int64, data bool) bool,
) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for end := off + n; off < end; {
		step := min(end-off, hole-off%hole)
		if !report(step, m.data[off/hole]) {
			return nil
		}
		off += step
	}
	return nil
}

// colours is a memory with contexts of its own: test:N has the flag N where there is
// data, and zero where there is none. There are nine of them.
type colours struct{ *memory }

func (m colours) ListContexts(query string) (names []string) {
	for n := '1'; n <= '9'; n++ {
		if name := "test:" + string(n); query == "" || query == "test:" || query == name {
			names = append(names, name)
		}
	}
	return names
}

func (m colours) OpenContext(name string) Status {
	n, ok := strings.CutPrefix(name, "test:")
	if !ok || len(n) != 1 || n < "1" || n > "9" {
		return nil
	}
	return func(ctx context.Context, off, length int64, report func(int64, uint32) bool) error {
		return m.Extents(ctx, off, length, func(length int64, data bool) bool {
			if data {
				return report(length, uint32(n[0]-'0'))
			}
			return report(length, 0)
		})
	}
}

// holds says whether the device's content is want.
func (m *memory) holds(want []byte) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return bytes.Equal(m.bytes, want)
}

// hasData says whether the byte at off is outside of all holes.
func (m *memory) hasData(off int64) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.data[off/hole]
}
