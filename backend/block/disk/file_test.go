package disk_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
)

const (
	fileSize    = 24 << 20
	fileJournal = 8 << 20
	fileRaw     = 1<<20 + fileJournal // where the raw area begins
)

// formatFile makes a disk in a file of its own.
func formatFile(tb testing.TB) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "d")
	o := disk.FormatOptions{Cluster: cluster, Disk: 42, Size: fileSize, Journal: fileJournal}
	if id, err := disk.Format(context.Background(), path, o); err != nil || id != 42 {
		tb.Fatalf("format: %v, %v", id, err)
	}
	return path
}

func openPath(tb testing.TB, path string) *disk.Disk {
	tb.Helper()
	d, err := disk.Open(context.Background(), path, disk.Options{Cluster: cluster})
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// flip changes a byte of a file.
func flip(tb testing.TB, path string, off int64) {
	tb.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		tb.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], off); err != nil {
		tb.Fatal(err)
	}
}

// copyDisk copies a disk's file and map, as a power cut would leave them.
func copyDisk(tb testing.TB, path string) string {
	tb.Helper()
	to := filepath.Join(tb.TempDir(), "d")
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.CopyFS(to+".map", os.DirFS(path+".map")); err != nil {
		tb.Fatal(err)
	}
	return to
}

// promise begins a row of volume 1.
func promise(tb testing.TB, d *disk.Disk) {
	tb.Helper()
	_, err := d.Prepare(context.Background(), disk.Prepare{Volume: 1, Generation: 1})
	if err != nil {
		tb.Fatal(err)
	}
}

// replaceMap gives a disk the map of another.
func replaceMap(tb testing.TB, path, other string) {
	tb.Helper()
	err := errors.Join(os.RemoveAll(path+".map"), os.Rename(other+".map", path+".map"))
	if err != nil {
		tb.Fatal(err)
	}
}

// What is no disk, or not this cluster's, or in use, or incomplete, is refused by a
// code and a sentence that says why.
func TestOpenRefuses(t *testing.T) {
	ctx := t.Context()
	open := func(path string, c model.ClusterID) error {
		d, err := disk.Open(ctx, path, disk.Options{Cluster: c})
		if err == nil {
			return d.Close()
		}
		return err
	}
	format := func(path string, size model.Bytes) error {
		_, err := disk.Format(ctx, path, disk.FormatOptions{Cluster: cluster, Size: size})
		return err
	}
	for name, c := range map[string]struct {
		do   func(t *testing.T) error
		code model.Code
		says string
	}{
		"nothing there": {
			func(t *testing.T) error {
				t.Helper()
				return open(filepath.Join(t.TempDir(), "no"), cluster)
			},
			model.NotFound, "no disk here",
		},
		"an empty file": {func(t *testing.T) error {
			t.Helper()
			path := filepath.Join(t.TempDir(), "empty")
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return open(path, cluster)
		}, model.NotFound, "no disk of this kind"},
		"another cluster": {
			func(t *testing.T) error {
				t.Helper()
				return open(formatFile(t), cluster+1)
			},
			model.Conflict, "belongs to cluster",
		},
		"in use": {func(t *testing.T) error {
			t.Helper()
			path := formatFile(t)
			d := openPath(t, path)
			defer closed(t, d)
			return open(path, cluster)
		}, model.Conflict, "in use"},
		"no map": {func(t *testing.T) error {
			t.Helper()
			path := formatFile(t)
			if err := os.RemoveAll(path + ".map"); err != nil {
				t.Fatal(err)
			}
			return open(path, cluster)
		}, model.Corrupt, "map is missing"},
		"the map of another disk": {func(t *testing.T) error {
			t.Helper()
			path, other := formatFile(t), formatFile(t)
			replaceMap(t, path, other)
			return open(path, cluster)
		}, model.Corrupt, "another disk"},
		"an older map": {func(t *testing.T) error {
			t.Helper()
			path := formatFile(t)
			old := copyDisk(t, path)
			d := openPath(t, path)
			promise(t, d)
			closed(t, d)
			replaceMap(t, path, old)
			return open(path, cluster)
		}, model.Corrupt, "older than the journal"},
		"an older file": {func(t *testing.T) error {
			t.Helper()
			path := formatFile(t)
			old := copyDisk(t, path)
			d := openPath(t, path)
			promise(t, d)
			closed(t, d)
			if err := os.Rename(old, path); err != nil {
				t.Fatal(err)
			}
			return open(path, cluster)
		}, model.Corrupt, "the map has seen"},
		"both superblocks": {func(t *testing.T) error {
			t.Helper()
			path := formatFile(t)
			flip(t, path, 100)
			flip(t, path, 65536+100)
			return open(path, cluster)
		}, model.Corrupt, "superblock"},
		"a shorter file": {func(t *testing.T) error {
			t.Helper()
			path := formatFile(t)
			if err := os.Truncate(path, fileSize/2); err != nil {
				t.Fatal(err)
			}
			return open(path, cluster)
		}, model.Corrupt, "has 12582912 now"},
		"formatted twice": {func(t *testing.T) error {
			t.Helper()
			return format(formatFile(t), 0)
		}, model.Conflict, "a disk here already"},
		"formatted though damaged": {func(t *testing.T) error {
			t.Helper()
			path := formatFile(t)
			flip(t, path, 100)
			flip(t, path, 65536+100)
			return format(path, 0)
		}, model.Conflict, "damaged disk"},
		"too small": {func(t *testing.T) error {
			t.Helper()
			return format(filepath.Join(t.TempDir(), "small"), 8<<20)
		}, model.Invalid, "too small"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.do(t)
			if model.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %q: %v; want %q: … %s …", model.CodeOf(err), err, c.code, c.says)
			}
		})
	}
}

// A disk's file has its space from the beginning and keeps it when pages are freed;
// a sparse one takes its own as it is written.
func TestSpaceOfTheFile(t *testing.T) {
	for _, sparse := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "d")
		o := disk.FormatOptions{Cluster: cluster, Size: fileSize, Journal: fileJournal, Sparse: sparse}
		if _, err := disk.Format(t.Context(), path, o); err != nil {
			t.Fatal(err)
		}
		if has := occupied(t, path); has < fileRaw/2 || sparse == (has >= fileSize) {
			t.Errorf("sparse %v: a new file of %d bytes has room for %d", sparse, fileSize, has)
		}
		d := openPath(t, path)
		promise(t, d)
		for i, op := range []*disk.Op{
			writeOp(1, 1, 0, 0, 256, 1),
			{Kind: disk.Discard, Volume: 1, Generation: 1, Number: 2, Prev: 1, Count: 256},
		} {
			if err := apply(d, op); err != nil {
				t.Fatalf("op %d: %v", i, err)
			}
		}
		if err := d.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		closed(t, d)
		if has := occupied(t, path); sparse == (has >= fileSize) {
			t.Errorf("sparse %v: after a discard a file of %d bytes has room for %d", sparse, fileSize, has)
		}
	}
}

// occupied is what a file takes from its file system.
func occupied(t *testing.T, path string) int64 {
	t.Helper()
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil {
		t.Fatal(err)
	}
	return s.Blocks * 512
}

// A disk the file system has no room for is refused before anything of that room is
// taken, and a disk that cannot be made leaves no file.
func TestNoRoomForTheFile(t *testing.T) {
	for name, c := range map[string]struct {
		o    disk.FormatOptions
		code model.Code
	}{
		"no room":   {disk.FormatOptions{Cluster: cluster, Size: 8 << 50}, model.NoSpace},
		"too small": {disk.FormatOptions{Cluster: cluster, Size: 8 << 20, Sparse: true}, model.Invalid},
	} {
		dir := t.TempDir()
		_, err := disk.Format(t.Context(), filepath.Join(dir, "d"), c.o)
		if model.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %q", name, err, c.code)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: left behind: %v, %v", name, left, err)
		}
	}
}

// One damaged copy of the superblock does no harm, and is good again after the next
// checkpoint.
func TestOneSuperblockIsEnough(t *testing.T) {
	path := formatFile(t)
	for _, off := range []int64{100, 65536 + 100} {
		flip(t, path, off)
		d := openPath(t, path)
		promise(t, d)
		closed(t, d)
	}
	closed(t, openPath(t, path))
}

// A byte flipped in the file is found when it is read, put right by a Copy, counted,
// and still counted after the disk was closed.
func TestFlippedByteInAFile(t *testing.T) {
	path := formatFile(t)
	d := openPath(t, path)
	promise(t, d)
	if err := apply(d, writeOp(1, 1, 0, 0, 16, 1)); err != nil {
		t.Fatal(err)
	}
	closed(t, d)
	flip(t, path, fileRaw+7*4096+11)

	d = openPath(t, path)
	_, err := readAll(d, 16)
	if got := damagedBlocks(t, err); len(got) != 1 || got[0] != 7 {
		t.Errorf("damaged: %v, want block 7", got)
	}
	repairs(t, d, 1)
	closed(t, d)
	d = openPath(t, path)
	defer closed(t, d)
	if u := d.Usage(); u.ChecksumErrors != 1 || u.Repaired != 1 {
		t.Errorf("restarted: %d checksum errors, %d repaired; want 1 and 1", u.ChecksumErrors, u.Repaired)
	}
	if _, err := readAll(d, 16); err != nil {
		t.Error(err)
	}
}

// journalled makes a disk whose journal holds three writes that no checkpoint has
// seen, and returns a copy as of then, with the batches' offsets.
func journalled(t *testing.T) (path string, batches []int64) {
	t.Helper()
	from := formatFile(t)
	d := openPath(t, from)
	defer closed(t, d)
	promise(t, d)
	for i := range uint64(3) {
		at := int64(d.Stats().JournalBytes)
		if err := apply(d, writeOp(1, i+1, i, int(i), 1, i)); err != nil {
			t.Fatal(err)
		}
		batches = append(batches, 1<<20+at)
	}
	return copyDisk(t, from), batches
}

// A batch that is bad at the end was torn by a power cut and never answered: the
// disk goes on without it. One with good ones after it was answered once: the
// disk says so and does not open.
func TestTornTailAndCorruptMiddle(t *testing.T) {
	for name, off := range map[string]int64{"header": 60, "payload": 4096 + 5} {
		t.Run("torn "+name, func(t *testing.T) {
			path, at := journalled(t)
			flip(t, path, at[2]+off)
			d := openPath(t, path)
			defer closed(t, d)
			for i, seed := range []uint64{0, 1} {
				dst, err := readAll(d, 3)
				want, _ := data(1, seed)
				if err != nil || !bytes.Equal(dst[i*4096:][:4096], want.Bytes) {
					t.Errorf("block %d: %v", i, err)
				}
			}
			if err := apply(d, writeOp(1, 3, 2, 2, 1, 9)); err != nil { // its number is free again
				t.Error(err)
			}
		})
		t.Run("corrupt "+name, func(t *testing.T) {
			path, at := journalled(t)
			flip(t, path, at[1]+off)
			_, err := disk.Open(context.Background(), path, disk.Options{Cluster: cluster})
			if model.CodeOf(err) != model.Corrupt || !strings.Contains(err.Error(), "writes are lost") {
				t.Errorf("open: %v", err)
			}
		})
	}
}

var makeGolden = flag.Bool("update-disk", false, "write the golden disk anew")

const goldenDisk = "testdata/disk.v1.tar.gz"

// A disk of version 1, left by a power cut with work in its journal, opens for ever
// and holds what it held.
func TestGoldenDisk(t *testing.T) {
	if *makeGolden {
		writeGolden(t)
	}
	dir := t.TempDir()
	unpack(t, goldenDisk, dir)
	d := openPath(t, filepath.Join(dir, "d"))
	defer closed(t, d)
	if d.ID() != 42 {
		t.Errorf("disk %v", d.ID())
	}
	w := goldenWorld(func(*disk.Op) {})
	if err := w.equals(d, 1, 1, 8, 2); err != nil {
		t.Error(err)
	}
	got, err := d.Prepare(context.Background(), disk.Prepare{Volume: 1, Generation: 2})
	if err != nil || got.Watermark != (model.Stamp{Generation: 1, Number: 1}) || len(got.Uncertain) == 0 {
		t.Errorf("promise %+v, %v", got, err)
	}
}

// goldenWorld is what the golden disk holds; each is told of the ops that made it.
func goldenWorld(each func(*disk.Op)) *world {
	w := newWorld()
	_, _ = w.prepare(disk.Prepare{Volume: 1, Generation: 1})
	ops := []*disk.Op{
		writeOp(1, 1, 0, 0, 40, 1),
		writeOp(1, 2, 1, 3, 2, 2),
		copyOp(1, 3, 2, 5, 0, model.Stamp{Generation: 1, Number: 1}, 0x0f0f, 3),
		writeOp(1, 4, 3, 20, 30, 4),
		{Kind: disk.Discard, Volume: 1, Generation: 1, Number: 5, Prev: 4, Epoch: 1, Block: 2, Count: 4},
		{Kind: disk.Discard, Volume: 1, Generation: 1, Number: 6, Prev: 5, Epoch: 1, Block: 32, Count: 16},
	}
	ops[2].Watermark = model.Stamp{Generation: 1, Number: 1}
	ops[3].Epoch = 1
	for _, op := range ops {
		w.apply(op)
		each(op)
	}
	return w
}

func writeGolden(t *testing.T) {
	t.Helper()
	from := formatFile(t)
	d := openPath(t, from)
	promise(t, d)
	goldenWorld(func(op *disk.Op) {
		if err := apply(d, op); err != nil {
			t.Fatal(err)
		}
		if op.Number == 3 {
			if err := d.Checkpoint(); err != nil {
				t.Fatal(err)
			}
		}
	})
	dir := filepath.Dir(copyDisk(t, from))
	closed(t, d)
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	if err := errors.Join(w.AddFS(os.DirFS(dir)), w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(goldenDisk, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

func unpack(t *testing.T, file, dir string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.FileInfo().IsDir() {
			if err := root.Mkdir(h.Name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
				t.Fatal(err)
			}
			continue
		}
		to, err := root.Create(h.Name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(to, r); err != nil {
			t.Fatal(err)
		}
		if err := to.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Reads, small and large writes of many rows at once do not disturb each other, on
// a real file.
func TestManyRowsAtOnce(t *testing.T) {
	path := formatFile(t)
	d := openPath(t, path)
	defer closed(t, d)
	ctx := context.Background()
	errs := make(chan error)
	const rows, rounds = 4, 60
	for vol := range model.VolumeID(rows) {
		go func() { errs <- oneRow(ctx, d, vol+1, rounds) }()
	}
	for range rows {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if u := d.Usage(); u.ChecksumErrors != 0 {
		t.Errorf("%d checksum errors", u.ChecksumErrors)
	}
}

// oneRow overwrites two pages again and again, in parts and whole, and reads them
// while it does: a block is always the last one written, or the one before while a
// write is under way.
func oneRow(ctx context.Context, d *disk.Disk, vol model.VolumeID, rounds int) error {
	if _, err := d.Prepare(ctx, disk.Prepare{Volume: vol, Generation: 1}); err != nil {
		return err
	}
	stop, read := make(chan struct{}), make(chan error, 1)
	go func() {
		dst, sums := make([]byte, 32*4096), make([]uint32, 32)
		for {
			select {
			case <-stop:
				read <- nil
				return
			default:
			}
			r := disk.Read{Volume: vol, Generation: 1, Count: 32}
			if err := d.Read(ctx, r, dst, sums); err != nil {
				read <- err
				return
			}
		}
	}()
	last := uint64(0)
	var failed error
	for i := range rounds {
		op := writeOp(1, last+1, last, i%17, 1+i%15, uint64(i))
		if i%3 == 0 {
			op = writeOp(1, last+1, last, 0, 32, uint64(i))
		}
		op.Volume = vol
		if failed = apply(d, op); failed != nil {
			break
		}
		last++
		dst, sums := make([]byte, int(op.Count)*4096), make([]uint32, op.Count)
		r := disk.Read{Volume: vol, Generation: 1, Block: op.Block, Count: int(op.Count)}
		if failed = d.Read(ctx, r, dst, sums); failed == nil && !bytes.Equal(dst, op.Data.Bytes) {
			failed = errors.New("what was read is not what was written last")
		}
		if failed != nil {
			break
		}
		if i%20 == 19 {
			failed = errors.Join(failed, d.Checkpoint())
		}
	}
	close(stop)
	return errors.Join(failed, <-read)
}
