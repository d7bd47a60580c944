package guard

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"strings"
	"sync"
	"time"
)

// A memory is the file from which the next guard learns the deadline. It holds
// one line of fixed length, so that one write replaces it: a magic with its
// version, the boot it is of, the deadline, and a CRC-32C of all before it.
// It need not survive the machine: guests do not either.
type memory struct {
	file *os.File
	boot string
	next chan Boottime // at most one, the latest
	done sync.WaitGroup
	err  error // of the last write; read after done
}

const memoryMagic = "drystone-guard-1"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openMemory opens the file and returns the deadline in it, zero if it has none
// of this boot.
func openMemory(path string) (*memory, Boottime, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, 0, fmt.Errorf("which boot is this: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // the node's own
	if err != nil {
		return nil, 0, fmt.Errorf("open memory: %w", err)
	}
	m := &memory{file: f, boot: strings.TrimSpace(string(boot)), next: make(chan Boottime, 1)}
	b := make([]byte, len(m.line(0)))
	n, _ := f.ReadAt(b, 0) // short or unreadable: no deadline
	deadline := m.parse(b[:n])
	m.done.Go(m.write)
	return m, deadline, nil
}

func (m *memory) line(deadline Boottime) []byte {
	b := fmt.Appendf(nil, "%s %s %020d", memoryMagic, m.boot, deadline)
	return fmt.Appendf(b, " %08x\n", crc32.Checksum(b, castagnoli))
}

func (m *memory) parse(b []byte) Boottime {
	var deadline Boottime
	var magic, boot string
	var sum uint32
	if _, err := fmt.Sscanf(string(b), "%s %s %d %x\n", &magic, &boot, &deadline, &sum); err != nil {
		return 0
	}
	if deadline < 0 || !bytes.Equal(b, m.line(deadline)) {
		return 0
	}
	return deadline
}

// remember writes the deadline down soon. It never waits: a disk that hangs must
// not keep the guard from hearing the next renewal.
func (m *memory) remember(deadline Boottime) {
	for {
		select {
		case m.next <- deadline:
			return
		default:
		}
		select {
		case <-m.next: // overtaken
		default:
		}
	}
}

func (m *memory) write() {
	for deadline := range m.next {
		_, m.err = m.file.WriteAt(m.line(deadline), 0)
	}
}

// memoryWait bounds how long the end waits for a disk that hangs.
const memoryWait = time.Second

// close writes down what is left. No remember may follow.
func (m *memory) close() error {
	close(m.next)
	written := make(chan struct{})
	go func() {
		m.done.Wait()
		close(written)
	}()
	select {
	case <-written:
		return errors.Join(m.err, m.file.Close())
	case <-time.After(memoryWait):
		return errors.New("the disk with the guard's memory does not answer")
	}
}
