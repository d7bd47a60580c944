package cluster

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// chunk is how much a stuffer writes at once.
const chunk = 1 << 20

// A stuffer fills a volume from its beginning, a few chunks at a time, and remembers
// which writes were answered. Every write must succeed, however long it takes.
type stuffer struct {
	t      *testing.T
	export *export
	conn   *client
	ledger *ledger
	limit  atomic.Int64 // chunks
	next   atomic.Int64
	ended  atomic.Int64
	work   sync.WaitGroup
}

func (c *cluster) stuffer(name, node string, size int) *stuffer {
	c.t.Helper()
	e := c.export(name, node)
	conn, err := dial(e.socket())
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(conn.close)
	return &stuffer{t: c.t, export: e, conn: conn, ledger: newLedger(size / block)}
}

// begin writes on, up to limit chunks.
func (s *stuffer) begin(limit int64) {
	s.limit.Store(limit)
	for range 4 {
		s.work.Go(func() {
			for at := s.next.Add(1) - 1; at < s.limit.Load(); at = s.next.Add(1) - 1 {
				if err := s.put(int(at)*chunk, chunk); err != nil {
					s.t.Errorf("write chunk %d: %v", at, err)
					return
				}
				s.ended.Add(1)
			}
			s.next.Add(-1)
		})
	}
}

// put writes n bytes at off anew.
func (s *stuffer) put(off, n int) error {
	p := make([]byte, n)
	for i := 0; i < n; i += block {
		at := (off + i) / block
		s.ledger.mu.Lock()
		s.ledger.sent[at]++
		fill(p[i:i+block], at, s.ledger.sent[at])
		s.ledger.mu.Unlock()
	}
	if err := s.conn.writeAt(p, int64(off)); err != nil {
		return err
	}
	s.ledger.mu.Lock()
	for i := off / block; i < (off+n)/block; i++ {
		s.ledger.acked[i] = s.ledger.sent[i]
	}
	s.ledger.mu.Unlock()
	return nil
}

// overwrite writes and reads blocks that are there, and wants all of it done at once.
func (s *stuffer) overwrite(t *testing.T, when string) {
	t.Helper()
	began := time.Now()
	p := make([]byte, block)
	for range 50 {
		at := rand.IntN(int(s.ended.Load())/2) * chunk
		if err := s.put(at, block); err != nil {
			t.Fatalf("overwrite %s: %v", when, err)
		}
		if err := s.conn.readAt(p, int64(at)); err != nil {
			t.Fatalf("read %s: %v", when, err)
		}
		if n, err := number(p, at/block); err != nil || n != s.ledger.acked[at/block] {
			t.Fatalf("%s block %d holds write %d, %v, not %d", when, at/block, n, err, s.ledger.acked[at/block])
		}
	}
	if took := time.Since(began); took > stallMax {
		t.Errorf("overwrites %s took %v", when, took)
	}
}

// trim discards chunks [from, to).
func (s *stuffer) trim(t *testing.T, from, to int) {
	t.Helper()
	if err := s.conn.trim(int64(from)*chunk, (to-from)*chunk); err != nil {
		t.Fatal(err)
	}
	clear(s.ledger.acked[from*chunk/block : to*chunk/block])
	clear(s.ledger.sent[from*chunk/block : to*chunk/block])
}

// A guest fills the pool. From 85 % on nothing new is made, and the refusal says why. At
// 92 % its writes wait, without an error, for as long as it takes, and everything else
// goes on: overwrites, reads, the loss of a node and its return. An alarm says what is
// full. A discard lets some of the writes go on, and deleting a volume all of them; what
// was answered is there.
func TestFullPool(t *testing.T) {
	t.Parallel()
	c := up(t, "--disks", "1", "--disk-size", "1G")
	c.must("volume", "create", "old", "512M")
	c.must("volume", "create", "data", "4G")
	c.must("snapshot", "create", "old", "before")
	old := c.stuffer("old", "node2", 512<<20)
	old.begin(160)
	s := c.stuffer("data", "node1", 4<<30)
	size := int64(0)
	for _, d := range get[struct {
		Items []struct {
			Size int64 `json:"size_bytes"`
		} `json:"items"`
	}](c, "disk", "list").Items {
		size += d.Size
	}
	s.begin(size*87/100/2/chunk - 160)
	s.work.Wait()
	old.work.Wait()
	eventually(t, 20*time.Second, "the pool is said to be at 85 %", func() bool {
		return strings.Contains(c.must("status"), "the pool is 8")
	})
	c.nothingNew("85 %")
	s.overwrite(t, "at 87 %")

	s.begin(4 << 30 / chunk)
	waits := func() bool { return strings.Contains(c.must("volume", "show", "data"), "writes wait for room on disk") }
	eventually(t, 30*time.Second, "writes wait", waits)
	eventually(t, 20*time.Second, "an alarm says so", func() bool {
		return strings.Contains(c.must("status"), "% full: writes that need new room on it wait until there is some")
	})
	c.nothingNew("full")
	s.overwrite(t, "on full disks")
	c.kill("node3")
	s.overwrite(t, "on full disks while a node is lost")
	c.start("node3")
	c.awaitWhole("data")
	s.overwrite(t, "on full disks after a node is back")
	eventually(t, 30*time.Second, "writes wait again", waits)

	before := s.ended.Load()
	s.trim(t, 0, 24)
	eventually(t, 30*time.Second, "writes end after a discard", func() bool { return s.ended.Load() > before })
	s.limit.Store(0)
	old.export.stop()
	c.awaitFree("old")
	c.must("volume", "delete", "old")
	s.work.Wait()
	eventually(t, 30*time.Second, "nothing waits", func() bool { return !waits() })
	s.ledger.acked, s.ledger.sent = s.ledger.acked[:s.next.Load()*chunk/block], s.ledger.sent[:s.next.Load()*chunk/block]
	if _, err := s.ledger.verify(s.conn); err != nil {
		t.Error(err)
	}
	c.awaitWhole("data")
	eventually(t, time.Minute, "there is room for what is new, once what was deleted is freed", func() bool {
		return c.run("snapshot", "create", "data", "after").status == 0
	})
}

// nothingNew wants all that would take new room refused, with a reason that says says.
func (c *cluster) nothingNew(says string) {
	c.t.Helper()
	before := snapshot(c)
	for _, args := range [][]string{
		{"volume", "create", "new", "1G"},
		{"snapshot", "create", "data", "new"},
		{"volume", "clone", "data", "new"},
		{"volume", "clone", "old@before", "new"},
	} {
		if r := c.run(args...); r.status != 1 || !strings.Contains(r.errs, says) || !strings.Contains(r.errs, "must be free") {
			c.t.Errorf("%v on a full pool: %v", slices.Concat([]string{"drystone"}, args), r)
		}
	}
	if after := snapshot(c); after != before {
		c.t.Errorf("something changed:\n%s\nbefore:\n%s", after, before)
	}
}
