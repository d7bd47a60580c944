package conformance

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/uring"
	"drystone.example/drystone/tests/internal/devcluster"
)

const (
	loggedSize    = 32 * mib
	loggedCluster = model.ClusterID(7)
	loggedBlocks  = 2048 // that are written to, of one column
	blockSize     = int(model.BlockSize)
)

// QEMU logs each request that a disk makes of its file. Then the power fails after each
// flush of that log: the file is made of the log up to there, the map is what it was,
// before and after what the disk did to it until its next request. Whatever had been
// answered by then is found, block by block.
//
// The log is QEMU's, and so is the idea of what a flush is.
func TestLogWrites(t *testing.T) {
	l := newLogged(t)
	l.work(pick(500, 3000))
	log := readLog(t, l.log)
	replay := filepath.Join(t.TempDir(), "replay")
	l.copyFile(l.base, replay)
	f, err := os.OpenFile(replay, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // it is of no use any more
	flushes, checked, failed := 0, 0, 0
	for _, e := range log {
		if e.data != nil {
			if _, err := f.WriteAt(e.data, e.offset); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if flushes == len(l.points) {
			break // of the end, when the file is closed
		}
		p := l.points[flushes]
		flushes++
		if p.before == nil {
			continue
		}
		for _, m := range []*vfs.MemFS{p.before, p.after} {
			checked++
			if err := l.check(replay, m, p); err != nil {
				failed++
				t.Errorf("cut after flush %d of %d: %v", flushes, len(l.points), err)
			}
		}
		if failed > 3 {
			t.FailNow()
		}
	}
	if flushes < len(l.points) {
		t.Errorf("the log has %d flushes, and the disk asked for %d", flushes, len(l.points))
	}
	t.Logf("%d entries in the log, %d flushes, %d disks opened, %d ops", len(log), flushes, checked, len(l.ops))
	l.catches(replay)
}

// catches shows that what was answered later than a point is missed there.
func (l *logged) catches(replay string) {
	l.t.Helper()
	last := l.points[len(l.points)-1]
	l.copyFile(l.base, replay)
	if err := l.check(replay, l.made, last); err == nil {
		l.t.Error("a disk that lost everything was found to have what was answered")
	}
}

// An entry of the log: a write, or a flush, which has no data.
type entry struct {
	offset int64
	data   []byte
}

// readLog reads a log in the format of dm-log-writes.
// Source: https://docs.kernel.org/admin-guide/device-mapper/log-writes.html
func readLog(t *testing.T, path string) (out []entry) {
	t.Helper()
	const sector, header, flush = 512, 32, 1
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	if len(text) < sector || le.Uint64(text) != 0x6a736677736872 || le.Uint64(text[8:]) != 1 || le.Uint32(text[24:]) != sector {
		t.Fatal("there is no log of writes")
	}
	at := sector
	for range le.Uint64(text[16:]) {
		if at+header > len(text) {
			t.Fatalf("the log ends in the middle of an entry, at %d", at)
		}
		e := text[at:]
		where, sectors, flags := le.Uint64(e), le.Uint64(e[8:]), le.Uint64(e[16:])
		at += sector
		switch {
		case flags == flush && sectors == 0:
			out = append(out, entry{})
		case flags == 0 && sectors > 0:
			n := int(sectors) * sector
			out = append(out, entry{int64(where) * sector, text[at : at+n]})
			at += n
		default:
			t.Fatalf("an entry of the log has flags %d and %d sectors", flags, sectors)
		}
	}
	return out
}

// An op is what was asked of the disk; its number is its place, from one.
type op struct {
	block, count int
	discard      bool
}

// A point is the moment of a flush.
type point struct {
	// What was answered before the disk made its next request, and what it had been
	// asked for by then.
	acked, sent int
	checkpoint  bool // it is near one
	// The map then, and when the next request was made; nil if it is not looked at.
	before, after *vfs.MemFS
}

// A logged disk writes through QEMU, which logs. It makes one request at a time, so
// that its flushes are those of the log, in their order.
type logged struct {
	t               *testing.T
	base, file, log string     // the disk as it was made; where QEMU serves it; the log
	fs, made        *vfs.MemFS // the map, and as it was made
	d               *disk.Disk
	ring            *uring.Ring
	stop            func()

	one    sync.Mutex // held during a request; guards what follows
	points []*point
	wrote  bool // since the last flush
	synced int  // requests since the last checkpoint began

	mu          sync.Mutex // guards what follows
	ops         []op
	acked, sent int
	answered    map[int]bool // beyond acked
}

const mapDir = "map"

// orderly keeps the order of names, as real file systems do.
type orderly struct{ vfs.FS }

func (o orderly) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := o.FS.Create(name, c)
	if err != nil {
		return nil, err
	}
	dir, err := o.OpenDir(o.PathDir(name))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, errors.Join(dir.Sync(), dir.Close())
}

func newLogged(t *testing.T) *logged {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	l := &logged{t: t, base: at("base"), file: at("served"), log: at("log"), fs: vfs.NewCrashableMem(), synced: 1 << 20, answered: map[int]bool{}}
	for name, size := range map[string]int64{"base": loggedSize, "served": 0, "log": 0} {
		if err := errors.Join(os.WriteFile(at(name), nil, 0o600), os.Truncate(at(name), size)); err != nil {
			t.Fatal(err)
		}
	}
	base := l.open(l.base)
	m := disk.Medium{Area: base, Size: loggedSize, FS: orderly{l.fs}, Dir: mapDir}
	_, err := disk.FormatMedium(t.Context(), m, disk.FormatOptions{Cluster: loggedCluster, Journal: 8 * mib})
	if err := errors.Join(err, base.Close()); err != nil {
		t.Fatal(err)
	}
	l.made = l.fs.CrashClone(vfs.CrashCloneCfg{})
	l.copyFile(l.base, at("raw"))
	l.stop = storage(t, "--blockdev", "driver=file,node-name=raw,filename="+at("raw"),
		"--blockdev", "driver=file,node-name=log,filename="+l.log,
		"--blockdev", "driver=blklogwrites,node-name=logged,file=raw,log=log,log-sector-size=512",
		"--export", "type=fuse,id=e,node-name=logged,writable=on,mountpoint="+l.file)
	devcluster.Eventually(t, 20*time.Second, "qemu-storage-daemon serves a file", func() bool {
		info, err := os.Stat(l.file)
		return err == nil && info.Size() == loggedSize
	})
	l.ring = l.open(l.file)
	m.Area = l
	if l.d, err = disk.OpenMedium(t.Context(), m, disk.Options{Cluster: loggedCluster}); err != nil {
		t.Fatal(err)
	}
	return l
}

// open opens a file for plain calls: of a write with RWF_DSYNC that comes by io_uring
// the kernel tells a FUSE server in the write's flags alone, which QEMU does not look
// at; of others by an fsync too.
func (l *logged) open(path string) *uring.Ring {
	l.t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		l.t.Fatal(err)
	}
	r, err := uring.Open(f, uring.Options{Plain: true})
	if err != nil {
		l.t.Fatal(err)
	}
	return r
}

func (l *logged) copyFile(from, to string) {
	l.t.Helper()
	text, err := os.ReadFile(from)
	if err := errors.Join(err, os.WriteFile(to, text, 0o600)); err != nil {
		l.t.Fatal(err)
	}
}

// Do makes a request when none is under way.
func (l *logged) Do(q *uring.Request) error {
	l.one.Lock()
	defer l.one.Unlock()
	if n := len(l.points); n > 0 && l.points[n-1].sent == 0 {
		l.leave(l.points[n-1])
	}
	err := l.ring.Do(q)
	l.wrote = l.wrote || q.Kind == uring.Write
	l.synced++
	if q.Kind == uring.Sync { // only a checkpoint does
		l.synced = 0
	}
	if err != nil || !l.wrote || q.Kind != uring.Sync && !q.Durable {
		return err // QEMU leaves a flush out when nothing was written since the last one
	}
	l.wrote = false
	p := &point{checkpoint: l.synced <= 6}
	l.points = append(l.points, p)
	if p.checkpoint || len(l.points)%pick(20, 7) == 0 {
		p.before = l.fs.CrashClone(vfs.CrashCloneCfg{})
	}
	return nil
}

// leave notes what is there before the first request after a point.
func (l *logged) leave(p *point) {
	l.mu.Lock()
	p.acked, p.sent = l.acked, l.sent
	l.mu.Unlock()
	if p.before != nil {
		p.after = l.fs.CrashClone(vfs.CrashCloneCfg{})
	}
}

// Start makes a request when it can be made.
func (l *logged) Start(q *uring.Request) { go func() { q.Done(l.Do(q)) }() }

// Close closes the file that QEMU serves.
func (l *logged) Close() error { return l.ring.Close() }

// work has the disk do so many ops, some at a time, and closes it.
func (l *logged) work(n int) {
	l.t.Helper()
	if _, err := l.d.Prepare(l.t.Context(), disk.Prepare{Volume: 1, Generation: 1}); err != nil {
		l.t.Fatal(err)
	}
	rng := rand.New(random(l.t))
	window := make(chan struct{}, 16)
	errs := make(chan error, n)
	for number := 1; number <= n; number++ {
		o := op{count: 1 + rng.IntN(8), discard: rng.IntN(8) == 0}
		if rng.IntN(10) == 0 { // whole pages too
			o.count = 16 * (1 + rng.IntN(3))
		}
		o.block = rng.IntN(loggedBlocks - o.count)
		window <- struct{}{}
		l.mu.Lock()
		l.ops, l.sent = append(l.ops, o), number
		l.mu.Unlock()
		l.d.Apply(o.message(number), func(err error) {
			l.answer(number)
			errs <- err
			<-window
		})
	}
	for range n {
		if err := <-errs; err != nil {
			l.t.Fatal(err)
		}
	}
	if l.d.Stats().Checkpoints < 2 {
		l.t.Errorf("there were %d checkpoints; that proves little", l.d.Stats().Checkpoints)
	}
	if err := l.d.Close(); err != nil {
		l.t.Fatal(err)
	}
	if p := l.points[len(l.points)-1]; p.sent == 0 {
		l.leave(p)
	}
	l.stop()
}

func (l *logged) answer(number int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.answered[number] = true; l.answered[l.acked+1]; l.acked++ {
		delete(l.answered, l.acked+1)
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// message is the op as the disk is told of it.
func (o op) message(number int) *disk.Op {
	m := &disk.Op{
		Kind: disk.Write, Volume: 1, Generation: 1, Number: uint64(number), Prev: uint64(number - 1),
		Block: layout.Block(o.block), Count: uint64(o.count),
	}
	if o.discard {
		m.Kind = disk.Discard
		return m
	}
	m.Data = iobuf.Get(o.count * blockSize)
	for i := range o.count {
		p := m.Data.Bytes[i*blockSize:][:blockSize]
		content(p, o.block+i, number)
		m.Sums = append(m.Sums, crc32.Checksum(p, castagnoli))
	}
	return m
}

// content fills what a block holds after an op.
func content(p []byte, block, number int) {
	for i := 0; i < len(p); i += 16 {
		binary.LittleEndian.PutUint64(p[i:], uint64(block)<<32|uint64(number))
		binary.LittleEndian.PutUint64(p[i+8:], uint64(i)*0x9e3779b97f4a7c15^uint64(number))
	}
}

// check opens the disk that a power cut left and looks at each block: it is as an op
// left it that is not older than the last one answered at that point.
func (l *logged) check(path string, fs *vfs.MemFS, p *point) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	d, err := disk.OpenMedium(l.t.Context(), disk.Medium{
		Area: &scratch{base: f, over: map[int64][]byte{}}, Size: loggedSize, FS: orderly{fs}, Dir: mapDir,
	}, disk.Options{Cluster: loggedCluster})
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	err = l.compare(l.t.Context(), d, p)
	return errors.Join(err, d.Close())
}

func (l *logged) compare(ctx context.Context, d *disk.Disk, p *point) error {
	if _, err := d.Prepare(ctx, disk.Prepare{Volume: 1, Generation: 2}); err != nil {
		return fmt.Errorf("promise: %w", err)
	}
	const chunk = 64
	got, sums := iobuf.Aligned(chunk*blockSize), make([]uint32, chunk)
	for block := 0; block < loggedBlocks; block += chunk {
		err := d.Read(ctx, disk.Read{
			Volume: 1, Generation: 2, Block: layout.Block(block), Count: chunk,
		}, got, sums)
		if err != nil {
			return fmt.Errorf("read block %d: %w", block, err)
		}
		for i := range chunk {
			if err := l.fits(got[i*blockSize:][:blockSize], block+i, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// fits returns an error unless a block may hold that at a point.
func (l *logged) fits(got []byte, block int, p *point) error {
	want := make([]byte, blockSize)
	for number := p.sent; number >= 0; number-- {
		clear(want)
		if number > 0 {
			o := l.ops[number-1]
			if block < o.block || block >= o.block+o.count {
				continue
			}
			if !o.discard {
				content(want, block, number)
			}
		}
		if bytes.Equal(got, want) {
			return nil
		}
		if number <= p.acked {
			return fmt.Errorf("block %d does not hold what op %d left, of which %d were answered and %d sent; it begins % x",
				block, number, p.acked, p.sent, got[:16])
		}
	}
	return nil
}

// A scratch is a file that is not changed by what is written to it.
type scratch struct {
	base *os.File

	mu   sync.Mutex // guards over
	over map[int64][]byte
}

func (s *scratch) Do(q *uring.Request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	off := q.Off
	for _, b := range q.Bufs {
		for p := range slices.Chunk(b, blockSize) {
			if q.Kind == uring.Write {
				s.over[off] = slices.Clone(p)
			} else if mine := s.over[off]; mine != nil {
				copy(p, mine)
			} else if _, err := s.base.ReadAt(p, off); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			off += int64(len(p))
		}
	}
	return nil
}

func (s *scratch) Start(q *uring.Request) { go func() { q.Done(s.Do(q)) }() }
func (s *scratch) Close() error           { return s.base.Close() }
