package cluster

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// A client is the least NBD client that can prove what was acknowledged: fixed
// newstyle, NBD_OPT_GO, simple replies, many requests in flight.
// Source: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
type client struct {
	conn net.Conn
	size int64

	mu      sync.Mutex // guards all
	next    uint64
	waiting map[uint64]*request
	err     error
	write   sync.Mutex // one request's bytes at a time
}

type request struct {
	into []byte
	done chan error
}

const (
	nbdRead  = 0
	nbdWrite = 1
	nbdTrim  = 4
)

// dial connects and negotiates the default export.
func dial(socket string) (*client, error) {
	conn, err := net.DialTimeout("unix", socket, 10*time.Second)
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn, waiting: map[uint64]*request{}}
	if err := c.negotiate(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("negotiate: %w", err)
	}
	go c.receive()
	return c, nil
}

func (c *client) negotiate() error {
	hello := make([]byte, 18)
	if _, err := io.ReadFull(c.conn, hello); err != nil {
		return err
	}
	if string(hello[:16]) != "NBDMAGICIHAVEOPT" {
		return fmt.Errorf("greeting %q", hello)
	}
	msg := binary.BigEndian.AppendUint32(nil, 3) // fixed newstyle, no zeroes
	msg = append(msg, "IHAVEOPT"...)
	msg = binary.BigEndian.AppendUint32(msg, 7) // NBD_OPT_GO
	msg = binary.BigEndian.AppendUint32(msg, 6) // empty name, no info requests
	msg = append(msg, make([]byte, 6)...)
	if _, err := c.conn.Write(msg); err != nil {
		return err
	}
	for {
		head := make([]byte, 20)
		if _, err := io.ReadFull(c.conn, head); err != nil {
			return err
		}
		kind, n := binary.BigEndian.Uint32(head[12:]), binary.BigEndian.Uint32(head[16:])
		body := make([]byte, n)
		if _, err := io.ReadFull(c.conn, body); err != nil {
			return err
		}
		switch {
		case kind == 1: // NBD_REP_ACK
			return nil
		case kind == 3 && binary.BigEndian.Uint16(body) == 0: // NBD_REP_INFO, NBD_INFO_EXPORT
			c.size = int64(binary.BigEndian.Uint64(body[2:]))
		case kind >= 1<<31:
			return fmt.Errorf("refused: %s", body)
		}
	}
}

func (c *client) receive() {
	in := bufio.NewReaderSize(c.conn, 1<<20)
	for {
		head := make([]byte, 16)
		if _, err := io.ReadFull(in, head); err != nil {
			c.fail(err)
			return
		}
		cookie := binary.BigEndian.Uint64(head[8:])
		c.mu.Lock()
		r := c.waiting[cookie]
		delete(c.waiting, cookie)
		c.mu.Unlock()
		if r == nil || binary.BigEndian.Uint32(head) != 0x67446698 {
			c.fail(errors.New("a reply to nothing"))
			return
		}
		if code := binary.BigEndian.Uint32(head[4:]); code != 0 {
			r.done <- fmt.Errorf("nbd error %d", code)
			continue
		}
		_, err := io.ReadFull(in, r.into)
		r.done <- err
	}
}

func (c *client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	for cookie, r := range c.waiting {
		r.done <- err
		delete(c.waiting, cookie)
	}
}

func (c *client) do(kind uint16, off int64, n int, out, into []byte) error {
	r := &request{into: into, done: make(chan error, 1)}
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return c.err
	}
	c.next++
	cookie := c.next
	c.waiting[cookie] = r
	c.mu.Unlock()
	msg := binary.BigEndian.AppendUint32(nil, 0x25609513)
	msg = binary.BigEndian.AppendUint16(msg, 0)
	msg = binary.BigEndian.AppendUint16(msg, kind)
	msg = binary.BigEndian.AppendUint64(msg, cookie)
	msg = binary.BigEndian.AppendUint64(msg, uint64(off))
	msg = binary.BigEndian.AppendUint32(msg, uint32(n))
	c.write.Lock()
	_, err := c.conn.Write(append(msg, out...))
	c.write.Unlock()
	if err != nil {
		c.fail(err)
	}
	return <-r.done
}

func (c *client) readAt(p []byte, off int64) error  { return c.do(nbdRead, off, len(p), nil, p) }
func (c *client) writeAt(p []byte, off int64) error { return c.do(nbdWrite, off, len(p), p, nil) }
func (c *client) trim(off int64, n int) error       { return c.do(nbdTrim, off, n, nil, nil) }
func (c *client) close()                            { c.conn.Close() }

// A ledger remembers, block by block, which write was acknowledged last and which
// was sent last; what a block holds must lie between the two.
type ledger struct {
	mu    sync.Mutex // guards both
	acked []uint64
	sent  []uint64
}

const block = 4096

func newLedger(blocks int) *ledger {
	return &ledger{acked: make([]uint64, blocks), sent: make([]uint64, blocks)}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fill makes a block that says of itself where it belongs and which write it is.
func fill(p []byte, at int, number uint64) {
	binary.LittleEndian.PutUint64(p, 0x44525953544f4e45)
	binary.LittleEndian.PutUint64(p[8:], uint64(at))
	binary.LittleEndian.PutUint64(p[16:], number)
	rng := rand.NewPCG(uint64(at), number)
	for i := 32; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], rng.Uint64())
	}
	binary.LittleEndian.PutUint32(p[24:], crc32.Checksum(p[32:], castagnoli))
}

// number reads a block back: which write it is of, zero for one never written.
func number(p []byte, at int) (uint64, error) {
	if len(trimZero(p)) == 0 {
		return 0, nil
	}
	switch {
	case binary.LittleEndian.Uint64(p) != 0x44525953544f4e45:
		return 0, fmt.Errorf("block %d holds something foreign", at)
	case binary.LittleEndian.Uint64(p[8:]) != uint64(at):
		return 0, fmt.Errorf("block %d holds block %d", at, binary.LittleEndian.Uint64(p[8:]))
	case binary.LittleEndian.Uint32(p[24:]) != crc32.Checksum(p[32:], castagnoli):
		return 0, fmt.Errorf("block %d is torn", at)
	}
	return binary.LittleEndian.Uint64(p[16:]), nil
}

func trimZero(p []byte) []byte {
	for len(p) > 0 && p[0] == 0 {
		p = p[1:]
	}
	return p
}

// load writes random blocks with so many workers until stop is closed or the
// connection ends, each worker in its own blocks.
func (l *ledger) load(c *client, workers int, stop <-chan struct{}) {
	var wait sync.WaitGroup
	for w := range workers {
		wait.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), uint64(time.Now().UnixNano())))
			p := make([]byte, block)
			for {
				select {
				case <-stop:
					return
				default:
				}
				at := rng.IntN(len(l.sent)/workers)*workers + w
				l.mu.Lock()
				l.sent[at]++
				n := l.sent[at]
				l.mu.Unlock()
				fill(p, at, n)
				if c.writeAt(p, int64(at)*block) != nil {
					return
				}
				l.mu.Lock()
				l.acked[at] = n
				l.mu.Unlock()
			}
		})
	}
	wait.Wait()
}

// verify reads everything and returns what is wrong, and how many acknowledged
// blocks were right. Blocks whose last write was never answered are settled now.
func (l *ledger) verify(c *client) (checked int, err error) {
	const chunk = 64
	p := make([]byte, chunk*block)
	for at := 0; at < len(l.sent); at += chunk {
		if err := c.readAt(p, int64(at)*block); err != nil {
			return checked, fmt.Errorf("read block %d: %w", at, err)
		}
		for i := range chunk {
			n, err := number(p[i*block:(i+1)*block], at+i)
			if err != nil {
				return checked, err
			}
			if n < l.acked[at+i] || n > l.sent[at+i] {
				return checked, fmt.Errorf("block %d holds write %d; %d was acknowledged, %d sent",
					at+i, n, l.acked[at+i], l.sent[at+i])
			}
			if l.acked[at+i] > 0 {
				checked++
			}
			l.acked[at+i], l.sent[at+i] = n, n
		}
	}
	return checked, nil
}
