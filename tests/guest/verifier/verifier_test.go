package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// testOptions work as hard as they can on a small area.
func testOptions() options {
	o := defaults()
	o.area, o.rate, o.wave, o.guest, o.seed = 8<<20, 0, 0, 7, 1
	return o
}

func testDisk(t *testing.T, size int64) (string, *disk) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	d, err := openDisk(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return path, d
}

// runFor runs a verifier until done says so of its progress, or a time has passed.
func runFor(t *testing.T, o options, dev device, done func(*verifier) bool) (string, error) {
	t.Helper()
	var out bytes.Buffer
	v, err := newVerifier(o, dev, &out)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var watching sync.WaitGroup
	watching.Go(func() {
		defer cancel()
		for ctx.Err() == nil && !done(v) {
			time.Sleep(time.Millisecond)
		}
	})
	err = v.run(ctx)
	watching.Wait()
	return out.String(), err
}

func after(reads uint64) func(*verifier) bool {
	return func(v *verifier) bool { return v.reads.Load() >= reads && v.writes.Load() >= reads/2 }
}

// A good disk shows no error, also in a second run over what the first one left.
func TestGoodDisk(t *testing.T) {
	_, d := testDisk(t, 8<<20)
	for range 2 {
		out, err := runFor(t, testOptions(), d, after(2000))
		if err != nil || strings.Contains(out, "VERIFY ERROR") {
			t.Fatalf("run = %v, want nil; it said:\n%s", err, out)
		}
		line := regexp.MustCompile(
			`(?m)^verified [1-9]\d* writes [1-9]\d* reads [1-9]\d* errors 0 longest_stall \d+\.\d{3}$`)
		if !line.MatchString(out) {
			t.Errorf("no line of progress in:\n%s", out)
		}
	}
}

// A faultyDisk does one wrong thing to every fiftieth write: one alone may be
// written over before anybody reads it.
type faultyDisk struct {
	*disk
	mu    sync.Mutex
	count int
	zeros bool // Zero lies, too
	fault func(d *disk, p []byte, off int64) (int, error)
}

func (f *faultyDisk) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	f.count++
	now := f.count%50 == 0
	f.mu.Unlock()
	if now {
		return f.fault(f.disk, p, off)
	}
	return f.disk.WriteAt(p, off)
}

func (f *faultyDisk) Zero(off, n int64) error {
	if f.zeros {
		return nil
	}
	return f.disk.Zero(off, n)
}

// A disk that says it zeroed, and did not, is seen.
func TestZeroNotDone(t *testing.T) {
	o := testOptions()
	o.area = 1 << 20
	_, d := testDisk(t, o.area)
	good := func(d *disk, p []byte, off int64) (int, error) { return d.WriteAt(p, off) }
	out, err := runFor(t, o, &faultyDisk{disk: d, zeros: true, fault: good},
		func(v *verifier) bool { return v.errors.Load() > 0 })
	if err == nil || !strings.Contains(out, "VERIFY ERROR read") {
		t.Errorf("run = %v, want errors; it said:\n%s", err, out)
	}
}

// Every way a disk can lose or damage an acknowledged write is seen.
func TestFaultsAreSeen(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault func(d *disk, p []byte, off int64) (int, error)
	}{
		{"lost", func(_ *disk, p []byte, _ int64) (int, error) { return len(p), nil }},
		{"flipped bit", func(d *disk, p []byte, off int64) (int, error) {
			p[len(p)/2] ^= 4
			return d.WriteAt(p, off)
		}},
		{"misplaced", func(d *disk, p []byte, off int64) (int, error) {
			if off >= int64(len(p)) {
				off -= int64(len(p))
			} else {
				off += int64(len(p))
			}
			return d.WriteAt(p, off)
		}},
		{"refused", func(*disk, []byte, int64) (int, error) { return 0, errors.New("i/o error") }},
		{"half", func(d *disk, p []byte, off int64) (int, error) {
			_, err := d.WriteAt(p[:sectorSize], off)
			return len(p), err
		}},
	} {
		t.Run(strings.ReplaceAll(tt.name, " ", "_"), func(t *testing.T) {
			o := testOptions()
			o.area = 1 << 20
			_, d := testDisk(t, o.area)
			out, err := runFor(t, o, &faultyDisk{disk: d, fault: tt.fault},
				func(v *verifier) bool { return v.errors.Load() > 0 })
			if err == nil || !strings.Contains(out, "VERIFY ERROR") {
				t.Errorf("run with a %s write = %v, want errors; it said:\n%s", tt.name, err, out)
			}
		})
	}
}

// What lies on the disk from before must be zero, or whole, in its place and ours.
func TestScan(t *testing.T) {
	block := func(s stamp) []byte {
		b := make([]byte, sectorSize)
		s.write(b)
		return b
	}
	torn := block(stamp{guest: 7, sector: 5, sequence: 1})
	copy(torn[256:], block(stamp{guest: 7, sector: 5, sequence: 2})[256:])
	for _, tt := range []struct {
		name   string
		sector []byte // at 5
		adopt  bool
		want   string // in the complaint; empty: none
	}{
		{"zero", make([]byte, sectorSize), false, ""},
		{"whole", block(stamp{guest: 7, sector: 5, sequence: 9}), false, ""},
		{"torn", torn, false, "torn or damaged"},
		{"misplaced", block(stamp{guest: 7, sector: 6}), false, "misplaced"},
		{"foreign", block(stamp{guest: 8, sector: 5}), false, "another guest's"},
		{"adopted", block(stamp{guest: 8, sector: 5}), true, ""},
		{"garbage", bytes.Repeat([]byte("x"), sectorSize), false, "no block of ours"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path, d := testDisk(t, 1<<20)
			disk := make([]byte, 1<<20)
			copy(disk[5*sectorSize:], tt.sector)
			if err := os.WriteFile(path, disk, 0o600); err != nil {
				t.Fatal(err)
			}
			o := testOptions()
			o.adopt = tt.adopt
			out, err := runFor(t, o, d, after(1))
			complained := strings.Contains(out, "VERIFY ERROR scan: sector 5: "+tt.want)
			if (tt.want != "") != complained || (tt.want != "") != (err != nil) {
				t.Errorf("scan said %v, want %q in:\n%s", err, tt.want, out)
			}
		})
	}
}

// A disk may keep or forget what was discarded, but not make it something else.
func TestMemoryOfDiscards(t *testing.T) {
	old, other := make([]byte, sectorSize), make([]byte, sectorSize)
	sum := stamp{guest: 7, sector: 0, sequence: 2}.write(old)
	stamp{guest: 7, sector: 0, sequence: 1}.write(other)
	for _, tt := range []struct {
		name string
		read []byte
		want int // errors
	}{
		{"kept", old, 0},
		{"forgotten", make([]byte, sectorSize), 0},
		{"older", other, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMemory(1, 7, false)
			m.wrote(0, []uint32{sum})
			m.doubt(0, 1, discarded)
			if errs := m.check(0, tt.read); len(errs) != tt.want {
				t.Errorf("check after discard = %v, want %d errors", errs, tt.want)
			}
			if errs := m.check(0, tt.read); len(errs) != 0 {
				t.Errorf("check of the same again = %v, want none", errs)
			}
		})
	}
}

func TestOptions(t *testing.T) {
	for _, tt := range []struct {
		words string
		ok    bool
	}{
		{"BOOT_IMAGE=x console=ttyS0 quiet", true},
		{"drystone.rate=10 drystone.area=64M drystone.size=4K drystone.wave=30s", true},
		{"drystone.speed=10", false},
		{"drystone.size=1000", false},
		{"drystone.area=10X", false},
		{"drystone.workers=0", false},
		{"drystone.rate=-1", false},
		{"drystone.rate=NaN", false},
	} {
		o := defaults()
		if err := o.parse(strings.Fields(tt.words)); (err == nil) != tt.ok {
			t.Errorf("parse(%q) = %v, want ok %v", tt.words, err, tt.ok)
		}
	}
	o := defaults()
	if err := o.parse([]string{"drystone.area=64M"}); err != nil || o.area != 64<<20 {
		t.Errorf("area = %d, %v; want %d", o.area, err, 64<<20)
	}
}

func TestMachineID(t *testing.T) {
	path := filepath.Join(t.TempDir(), "uuid")
	for text, want := range map[string]uint64{
		"00000000-0000-0001-0000-000000000002\n": 3,
		"not a uuid":                             0,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := machineID(path); got != want || (err == nil) != (want != 0) {
			t.Errorf("machineID(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
}
