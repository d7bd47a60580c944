package cluster

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// stallMax is how long a guest may wait for an answer when a node dies.
const stallMax = 10 * time.Second

// A fioRun is a running fio.
type fioRun struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  bytes.Buffer
	errs bytes.Buffer
	done chan error
}

// fio writes an NBD export full at random and then verifies every block.
func fio(t *testing.T, uri, size string, more ...string) *fioRun {
	t.Helper()
	f := &fioRun{t: t, done: make(chan error, 1)}
	args := []string{
		"--name=verify", "--ioengine=nbd", "--uri=" + uri, "--rw=randwrite",
		"--bsrange=4k-64k", "--iodepth=16", "--size=" + size, "--loops=2", "--verify=crc32c", "--verify_fatal=1",
		"--do_verify=1", "--randrepeat=0", "--verify_state_save=0", "--output-format=json",
	}
	f.cmd = exec.Command("fio", append(args, more...)...)
	f.cmd.Stdout, f.cmd.Stderr = &f.out, &f.errs
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { f.done <- f.cmd.Wait() }()
	t.Cleanup(func() {
		if f.cmd.ProcessState == nil {
			_ = f.cmd.Process.Kill()
			<-f.done //nolint:errcheck // it was killed
		}
	})
	return f
}

func (f *fioRun) running() bool { return len(f.done) == 0 }

// wait waits for the end and returns the longest time one request took.
func (f *fioRun) wait() time.Duration {
	f.t.Helper()
	select {
	case err := <-f.done:
		f.done <- err
		if err != nil {
			f.t.Fatalf("fio: %v\n%s\n%s", err, f.errs.String(), tail(f.out.String(), 30))
		}
	case <-time.After(4 * time.Minute):
		f.t.Fatal("fio did not end within four minutes")
	}
	var report struct {
		Jobs []struct {
			Error int `json:"error"`
			Write struct {
				Lat struct {
					Max int64 `json:"max"`
				} `json:"lat_ns"`
			} `json:"write"`
			Read struct {
				Lat struct {
					Max int64 `json:"max"`
				} `json:"lat_ns"`
			} `json:"read"`
		} `json:"jobs"`
	}
	_, text, _ := strings.Cut(f.out.String(), "{")
	if err := json.Unmarshal([]byte("{"+text), &report); err != nil || len(report.Jobs) == 0 {
		f.t.Fatalf("fio printed %q: %v", f.out.String(), err)
	}
	job := report.Jobs[0]
	if job.Error != 0 {
		f.t.Fatalf("fio ended with error %d\n%s", job.Error, f.errs.String())
	}
	return time.Duration(max(job.Write.Lat.Max, job.Read.Lat.Max))
}

// loadSize is how much fio writes, all of it.
const loadSize = 768 << 20

// With fio writing and verifying, a node that does not serve the export dies and
// comes back, then the other one: no error, no long stall, and all members are
// active again each time, and what the volume takes is what was written.
func TestNodesDieUnderLoad(t *testing.T) {
	t.Parallel()
	c := up(t)
	c.must("volume", "create", "load", "2G")
	e := c.export("load", "node1")
	for _, victim := range []string{"node2", "node3"} {
		f := fio(t, e.uri, strconv.Itoa(loadSize))
		time.Sleep(4 * time.Second)
		c.kill(victim)
		time.Sleep(8 * time.Second)
		if !f.running() {
			t.Log("fio ended before the node came back; the load was too short for this machine")
		}
		c.start(victim)
		if stall := f.wait(); stall > stallMax {
			t.Errorf("with %s killed a request took %v, want at most %v", victim, stall, stallMax)
		} else {
			t.Logf("with %s killed the longest request took %v", victim, stall)
		}
		c.awaitWhole("load")
		c.awaitUsed("load", loadSize)
	}
	e.stop()
	c.awaitFree("load")
}

// The node that holds the volume dies: whatever it acknowledged is read back from
// another node, and again after it came back.
func TestHolderDies(t *testing.T) {
	t.Parallel()
	c := up(t)
	c.must("volume", "create", "held", "1G")
	l := newLedger(64 << 20 / block)
	for round, from := range []string{"node1", "node2"} {
		e := c.export("held", from)
		conn, err := dial(e.socket())
		if err != nil {
			t.Fatal(err)
		}
		stop, ended := make(chan struct{}), make(chan struct{})
		go func() { l.load(conn, 16, stop); close(ended) }()
		time.Sleep(4 * time.Second)
		c.kill(from)
		<-ended
		conn.close()
		to := []string{"node3", "node1"}[round]
		if round == 1 {
			to = "node2"
			c.start(from)
		}
		verifyFrom(t, c, "held", to, l)
		if round == 0 {
			c.start(from)
		}
	}
	c.awaitWhole("held")
	verifyFrom(t, c, "held", "node1", l)
}

// verifyFrom exports a volume from a node and checks the ledger against it.
func verifyFrom(t *testing.T, c *cluster, name, node string, l *ledger) {
	t.Helper()
	checked, err := readBack(t, c, name, node, l)
	if err != nil {
		t.Fatalf("read from %s: %v", node, err)
	}
	if checked < 1000 {
		t.Fatalf("only %d blocks were acknowledged; that proves nothing", checked)
	}
	t.Logf("%d acknowledged blocks read back from %s", checked, node)
}

// readBack is verifyFrom for who wants to know what is wrong.
func readBack(t *testing.T, c *cluster, name, node string, l *ledger) (checked int, err error) {
	t.Helper()
	e := c.export(name, node)
	defer e.stop()
	conn, err := dial(e.socket())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.close()
	return l.verify(conn)
}

// Every daemon dies at once under load. They come back, the volume is taken over,
// and everything acknowledged is there.
func TestAllNodesDie(t *testing.T) {
	t.Parallel()
	c := up(t)
	c.must("volume", "create", "all", "1G")
	l := newLedger(64 << 20 / block)
	for range 2 {
		e := c.export("all", "node1")
		conn, err := dial(e.socket())
		if err != nil {
			t.Fatal(err)
		}
		stop, ended := make(chan struct{}), make(chan struct{})
		go func() { l.load(conn, 16, stop); close(ended) }()
		time.Sleep(4 * time.Second)
		c.killAll()
		<-ended
		conn.close()
		e.stop()
		for _, n := range c.Nodes {
			c.start(n.Name)
		}
		verifyFrom(t, c, "all", "node2", l)
		c.awaitWhole("all")
	}
}

// A bit of a disk's file rots while its node is down. The read is right all the
// same, the block is repaired, and the disk's counters say so.
func TestBitRot(t *testing.T) {
	t.Parallel()
	c := up(t)
	c.must("volume", "create", "rot", "1G")
	l := newLedger(1 << 20 / block)
	e := c.export("rot", "node1")
	conn, err := dial(e.socket())
	if err != nil {
		t.Fatal(err)
	}
	// One stripe unit of whole pages, which lie in the raw area as they are.
	p := make([]byte, 1<<20)
	for at := range l.sent {
		l.sent[at], l.acked[at] = 1, 1
		fill(p[at*block:(at+1)*block], at, 1)
	}
	if err := conn.writeAt(p, 0); err != nil {
		t.Fatal(err)
	}
	conn.close()
	e.stop()

	v := get[volume](c, "volume", "show", "rot")
	victim := v.Columns[0].Members[0]
	i := slices.IndexFunc(c.Nodes, func(n node) bool { return n.ID == victim.Node })
	n := c.Nodes[i]
	c.kill(n.Name)
	d := slices.IndexFunc(n.Disks, func(d struct {
		ID   string `json:"id"`
		Path string `json:"path"`
	},
	) bool {
		return d.ID == victim.Disk
	})
	flip(t, n.Disks[d].Path, p[3*block:4*block])
	c.start(n.Name)
	c.awaitWhole("rot")

	// Reads prefer the local copy, so the damaged one is seen.
	e = c.export("rot", n.Name)
	if conn, err = dial(e.socket()); err != nil {
		t.Fatal(err)
	}
	defer conn.close()
	if _, err := l.verify(conn); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the damage is counted and repaired", func() bool {
		errs, repaired := counters(c, victim.Disk)
		return errs > 0 && repaired > 0
	})
	before, _ := counters(c, victim.Disk)
	if _, err := l.verify(conn); err != nil {
		t.Fatal(err)
	}
	if after, _ := counters(c, victim.Disk); after != before {
		t.Errorf("a repaired block was damaged again: %d checksum errors, then %d", before, after)
	}
}

// Bits rot where nobody reads. A scrub of each disk finds them: what has a good copy
// is repaired, of a volume that is held by another node and of one that nobody holds;
// what has none is an error for who asks and for who reads, and nothing else is.
func TestScrub(t *testing.T) {
	t.Parallel()
	c := up(t)
	c.must("volume", "create", "rot", "1G")
	l := newLedger(1 << 20 / block)
	e := c.export("rot", "node1")
	conn, err := dial(e.socket())
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 1<<20)
	for at := range l.sent {
		l.sent[at], l.acked[at] = 1, 1
		fill(p[at*block:(at+1)*block], at, 1)
	}
	if err := conn.writeAt(p, 0); err != nil {
		t.Fatal(err)
	}
	members := get[volume](c, "volume", "show", "rot").Columns[0].Members
	paths := map[string]string{}
	for _, n := range c.Nodes {
		for _, d := range n.Disks {
			paths[d.ID] = d.Path
		}
	}
	scrub := func(disk string, errs, repaired int64) {
		t.Helper()
		c.must("disk", "scrub", disk)
		eventually(t, 10*time.Second, "the damage is counted and repaired", func() bool {
			gotErrs, gotRepaired := counters(c, disk)
			return gotErrs == errs && gotRepaired == repaired
		})
	}
	c.must("volume", "scrub", "rot") // while it is held
	for i, m := range members {      // in different pages, while node1 holds the volume
		flip(t, paths[m.Disk], p[(20*i+3)*block:(20*i+4)*block])
		scrub(m.Disk, 1, 1)
	}
	if _, err := l.verify(conn); err != nil {
		t.Fatal(err)
	}
	conn.close()
	e.stop()

	c.must("volume", "scrub", "rot") // while nobody holds it
	if out := c.must("volume", "show", "rot"); !strings.Contains(out, ": equal\n") {
		t.Errorf("the copies were compared: %s", out)
	}
	for i := range int64(3) { // in three pages, while nobody holds it: it is taken once
		flip(t, paths[members[0].Disk], p[(100+16*i)*block:(101+16*i)*block])
	}
	held := get[volume](c, "volume", "show", "rot").Generation
	scrub(members[0].Disk, 4, 4)
	if now := get[volume](c, "volume", "show", "rot"); now.Generation != held+1 || len(now.Lost.Ranges) > 0 {
		t.Errorf("after the repair of three pages: %+v; the generation was %d", now, held)
	}

	for _, m := range members {
		flip(t, paths[m.Disk], p[200*block:201*block])
	}
	for _, m := range members {
		if r := c.run("disk", "scrub", m.Disk); r.status == 0 || !strings.Contains(r.errs, "no good copy") {
			t.Errorf("scrub of lost data: %s", r)
		}
	}
	wantLost(c, "found", lostRange{200 * block, block})
	if out := c.must("status"); !strings.Contains(out, "4 KiB in 1 ranges of rot") {
		t.Errorf("status does not tell of what is lost: %s", out)
	}
	for _, n := range c.Nodes {
		c.kill(n.Name)
	}
	for _, n := range c.Nodes {
		c.start(n.Name)
	}
	wantLost(c, "after all nodes died", lostRange{200 * block, block})
	e = c.export("rot", "node2")
	if conn, err = dial(e.socket()); err != nil {
		t.Fatal(err)
	}
	defer conn.close()
	got := make([]byte, block)
	if err := conn.readAt(got, 200*block); err == nil {
		t.Error("a block without a good copy was read")
	}
	for _, at := range []int{199, 201} {
		if err := conn.readAt(got, int64(at)*block); err != nil || !bytes.Equal(got, p[at*block:(at+1)*block]) {
			t.Errorf("block %d beside the lost one: %v", at, err)
		}
	}
	if err := conn.writeAt(got, 200*block); err != nil {
		t.Fatal(err)
	}
	wantLost(c, "written anew")
	if err := conn.readAt(got, 200*block); err != nil {
		t.Errorf("a block that was lost and written anew: %v", err)
	}
}

// wantLost waits until a volume shows what it has lost.
func wantLost(c *cluster, when string, want ...lostRange) {
	c.t.Helper()
	eventually(c.t, 30*time.Second, "what is lost is shown, "+when, func() bool {
		r := c.run("volume", "show", "rot", "--json")
		var v volume
		return r.status == 0 && json.Unmarshal([]byte(r.out), &v) == nil && slices.Equal(v.Lost.Ranges, want)
	})
}

// flip changes one bit where a disk's file holds what.
func flip(t *testing.T, path string, what []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	found := 0
	buf := make([]byte, 4<<20)
	for off := int64(0); ; off += int64(len(buf)) {
		n, _ := f.ReadAt(buf, off)
		for at := 0; at+len(what) <= n; at += block {
			if bytes.Equal(buf[at:at+len(what)], what) {
				if _, err := f.WriteAt([]byte{what[100] ^ 4}, off+int64(at)+100); err != nil {
					t.Fatal(err)
				}
				found++
			}
		}
		if n < len(buf) {
			break
		}
	}
	if found == 0 {
		t.Fatalf("%s does not hold the block that was written", path)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// counters are a disk's, as `disk list` shows them.
func counters(c *cluster, disk string) (errs, repaired int64) {
	c.t.Helper()
	list := get[struct {
		Items []struct {
			ID       string `json:"id"`
			Errors   int64  `json:"checksum_errors"`
			Repaired int64  `json:"repaired"`
		} `json:"items"`
	}](c, "disk", "list")
	for _, d := range list.Items {
		if d.ID == disk {
			return d.Errors, d.Repaired
		}
	}
	c.t.Fatalf("disk %s is not in the list", disk)
	return 0, 0
}
