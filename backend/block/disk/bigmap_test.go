package disk

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

var (
	mapGiB    = flag.Int("map.gib", 4, "how full the disk of TestBigMap is, in GiB")
	mapCount  = flag.Bool("map.count", true, "open it also with nothing kept of its space, which reads all of the map")
	mapLeave  = flag.String("map.leave", "", "write to this disk and end with it open: for TestBigMap itself")
	mapWrites = flag.Int("map.writes", 2000, "how many writes its journal has to replay")
)

const (
	bigVolumes = 16
	bigColumns = 8
	bigCluster = model.ClusterID(7)
)

// pagesPerColumn is how much of each column the big map has.
func pagesPerColumn() int { return *mapGiB << 30 / pageSize / bigVolumes / bigColumns }

// A disk whose map is large opens without reading it, also when its journal is to be
// replayed; and finds the same as by reading it. Long: -map.gib=10240 is 10 TiB in
// pages of 64 KiB, and needs 17 GB. The test prints how long each took and what memory
// an open disk takes; docs/ARCHITECTURE.md has them.
func TestBigMap(t *testing.T) {
	if *mapLeave != "" {
		leaveJournal(t, *mapLeave)
		return
	}
	path := filepath.Join(t.TempDir(), "d")
	o := FormatOptions{
		Cluster: bigCluster, Disk: 9, Size: model.Bytes(*mapGiB)<<30*9/8 + 2<<30, Sparse: true,
	}
	if _, err := Format(t.Context(), path, o); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	buildMap(t, path)
	t.Logf("made a map of %d GiB in pages of %d KiB: %d versions, %d MB, in %.1f s", *mapGiB, pageSize>>10,
		pagesPerColumn()*bigVolumes*bigColumns, dirSize(t, path+".map")>>20, time.Since(begun).Seconds())
	if *mapCount {
		openBig(t, path, "counted", true)
	}
	openBig(t, path, "loaded", false)

	cmd := exec.Command(os.Args[0], "-test.run=^TestBigMap$", "-test.v",
		"-map.gib="+strconv.Itoa(*mapGiB), "-map.writes="+strconv.Itoa(*mapWrites), "-map.leave="+path)
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "left a journal") {
		t.Fatalf("the writer ended with %v:\n%s", err, out)
	}
	d := openBig(t, path, fmt.Sprintf("loaded, %d writes replayed", *mapWrites), false)
	if want := uint64(pagesPerColumn() * bigVolumes * bigColumns); d.space.count() != want {
		t.Errorf("%d places are named, want %d", d.space.count(), want)
	}
}

// buildMap puts versions of all pages of some volumes into the map of a new disk, by
// ingesting tables. What they say of the data is drawn: nothing reads it.
func buildMap(t *testing.T, path string) {
	t.Helper()
	dir := path + ".map"
	st, err := openStore(vfs.Default, dir, storeEvents{failed: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	n := pagesPerColumn()
	next := uint32(0)
	var tables []string
	var key, value []byte
	for vol := range bigVolumes {
		row := rowState{generation: 1, promises: 1}
		if err := st.db.Set(rowKey(model.VolumeID(vol+1)), rowValue(row, &uncertain{}), pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		for column := range bigColumns {
			name := filepath.Join(dir, fmt.Sprintf("big-%d-%d.tmp", vol, column))
			f, err := vfs.Default.Create(name, vfs.WriteCategoryUnspecified)
			if err != nil {
				t.Fatal(err)
			}
			w := sstable.NewWriter(objstorageprovider.NewFileWritable(f),
				sstable.WriterOptions{TableFormat: st.db.TableFormat()})
			for page := range n {
				v := version{
					mask: wholePage, place: place(next), stamp: model.Stamp{Generation: 1, Number: uint64(page + 1)},
				}
				next++
				for i := range v.sums {
					v.sums[i] = rng.Uint32()
				}
				key = pageKeyOf(key, pageKey{model.VolumeID(vol + 1), uint32(column), uint32(page)}, 0)
				value = appendVersion(value[:0], &v)
				if err := w.Set(key, value); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			tables = append(tables, name)
		}
	}
	if err := st.db.Ingest(context.Background(), tables); err != nil {
		t.Fatal(err)
	}
	if *mapCount {
		err = st.db.Delete(metaSpace, pebble.NoSync)
	} else {
		err = keepSpace(st, next, n)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := st.flush(nil); err != nil {
		t.Fatal(err)
	}
	if err := st.close(); err != nil {
		t.Fatal(err)
	}
}

// keepSpace puts what a checkpoint keeps of the space into the map: the first places
// are named, and all columns have as much.
func keepSpace(st *store, places uint32, perColumn int) error {
	s := newSpace(places)
	for p := range places {
		s.set(place(p))
	}
	var errs []error
	for c := range s.room {
		errs = append(errs, st.db.Set(chunkKey(uint32(c)), s.named([]uint32{uint32(c)})[0], pebble.NoSync))
	}
	for vol := range bigVolumes {
		for column := range bigColumns {
			key := countKey(columnKey{model.VolumeID(vol + 1), uint32(column)})
			value := appendPair([]byte{valueVersion}, uint64(perColumn), uint64(perColumn))
			errs = append(errs, st.db.Set(key, value, pebble.NoSync))
		}
	}
	return errors.Join(append(errs, st.db.Set(metaSpace,
		appendPair([]byte{valueVersion}, 1, uint64(places)), pebble.NoSync))...)
}

// openBig opens the disk, with nothing of its map in the kernel's cache, says what it
// took, and closes it.
func openBig(t *testing.T, path, how string, counted bool) *Disk {
	t.Helper()
	dropCache(t, path+".map")
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	begun := time.Now()
	d, err := Open(context.Background(), path, Options{Cluster: bigCluster})
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun)
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("%-30s open in %7.2f s, heap %4d MiB", how, took.Seconds(),
		(int64(after.HeapAlloc)-int64(before.HeapAlloc))>>20)
	if d.counted != counted {
		t.Errorf("%s: the space was counted: %v", how, d.counted)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return d
}

// leaveJournal writes here and there and ends the process with the disk open.
func leaveJournal(t *testing.T, path string) {
	t.Helper()
	d, err := Open(context.Background(), path, Options{Cluster: bigCluster, MapMemory: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	buf := iobuf.Get(blockSize)
	sums := []uint32{sumOf(buf.Bytes)}
	last := make([]uint64, bigVolumes)
	under := make(chan error, 64)
	for i := range *mapWrites {
		if i >= cap(under) {
			if err := <-under; err != nil {
				t.Fatal(err)
			}
		}
		vol := rng.IntN(bigVolumes)
		last[vol]++
		page := rng.IntN(pagesPerColumn())
		d.Apply(&Op{
			Kind: Write, Volume: model.VolumeID(vol + 1), Column: uint32(rng.IntN(bigColumns)), Generation: 1,
			Number: last[vol], Prev: last[vol] - 1, Block: layout.Block(page * model.BlocksPerPage), Count: 1,
			Sums: sums, Data: buf,
		}, func(err error) { under <- err })
	}
	for range min(*mapWrites, cap(under)) {
		if err := <-under; err != nil {
			t.Fatal(err)
		}
	}
	_, _ = fmt.Fprintln(os.Stdout, "left a journal") // for the process that started this one
	os.Exit(3)                                       //nolint:forbidigo // as a power cut does: nothing is closed
}

func dirSize(t *testing.T, dir string) (n int64) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if info, err := f.Info(); err == nil {
			n += info.Size()
		}
	}
	return n
}

// dropCache makes the kernel forget the files of a folder.
func dropCache(t *testing.T, dir string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range files {
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Sync()
		if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
}

// A read of the space far behind full chunks does not look at each of their words.
func TestFindSkipsFullChunks(t *testing.T) {
	s := newSpace(5*chunkPlaces + 100)
	for range 5 * chunkPlaces {
		s.take()
	}
	if p := s.take(); p != 5*chunkPlaces || s.free != 99 || s.room[4] != 0 || s.room[5] != 99 {
		t.Errorf("took %d, %d free, room %v", p, s.free, s.room)
	}
	s.giveBack(chunkPlaces + 3)
	s.next = 0
	if p := s.take(); p != chunkPlaces+3 {
		t.Errorf("took %d, want the one that was given back", p)
	}
}
