package ringfile

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

var layout = Layout{Weights: []int{-1, -1, 1}} // load, operations, latency

func open(t *testing.T, path string) *File {
	t.Helper()
	f, err := Open(path, layout)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func closed(t *testing.T, f *File) {
	t.Helper()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, f *File, from, to, step int64) []Point {
	t.Helper()
	points, err := f.Read(from, to, step)
	if err != nil {
		t.Fatal(err)
	}
	if want := (to - from + step - 1) / step; int64(len(points)) != want {
		t.Fatalf("%d points of %d to %d by %d", len(points), from, to, step)
	}
	return points
}

// begin is a moment where all rings begin a place.
const begin = 1_800_000_000 / 3600 * 3600

// Every ring has the mean of what was added, and what was not is a gap, also after the
// file was opened anew in the middle of a batch.
func TestRings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.ring")
	f := open(t, path)
	for s := range int64(3 * 3600) {
		if s >= 600 && s < 1200 { // it was off
			continue
		}
		if s%1777 == 0 {
			closed(t, f)
			f = open(t, path)
		}
		if err := f.Add(begin+s, []float32{float32(s), 0, 0}); err != nil {
			t.Fatal(err)
		}
	}
	last := int64(3*3600 - 1)
	for _, l := range levels {
		from := max(begin, begin+3*3600-l.span())
		for _, p := range read(t, f, from, begin+3*3600, l.step) {
			var sum, n float64
			for s := p.At - begin; s < p.At-begin+l.step; s++ {
				if s < 600 || s >= 1200 && s <= last {
					sum, n = sum+float64(s), n+1
				}
			}
			if p.Seconds != int64(n) {
				t.Fatalf("step %d: at %d, %d seconds are known, want %v", l.step, p.At-begin, p.Seconds, n)
			}
			if got := float64(p.Values[0]); n > 0 && (got < sum/n-0.01 || got > sum/n+0.01) {
				t.Fatalf("step %d: at %d the mean is %v, want %v", l.step, p.At-begin, got, sum/n)
			}
		}
	}
	closed(t, f)
}

// A file does not grow with time, and two years are known.
func TestBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.ring")
	f := open(t, path)
	day := int64(86400)
	for s := int64(0); s < 3*365*day; s += 3997 {
		if err := f.Add(begin+s, []float32{1, 1, 1}); err != nil {
			t.Fatal(err)
		}
	}
	end := f.Last() + 1
	known := 0
	for _, p := range read(t, f, (end-Span())/day*day+day, end, day) {
		if p.Seconds > 0 {
			known++
		}
	}
	if known < 728 {
		t.Errorf("of two years %d days are known", known)
	}
	closed(t, f)
	info, err := os.Stat(path)
	if err != nil || info.Size() > layout.Size() {
		t.Errorf("the file has %d bytes of %d: %v", info.Size(), layout.Size(), err)
	}
}

// A latency's mean counts operations, not time.
func TestWeights(t *testing.T) {
	f := open(t, filepath.Join(t.TempDir(), "a.ring"))
	for s, v := range [][]float32{{0, 0, 0}, {1, 10, 1}, {2, 30, 2}} {
		if err := f.Add(begin+int64(s), v); err != nil {
			t.Fatal(err)
		}
	}
	got := read(t, f, begin, begin+10, 10)[0].Values
	want := []float32{1, 40. / 3, 70. / 40}
	if !slices.EqualFunc(got, want, func(a, b float32) bool { return a-b < 1e-5 && b-a < 1e-5 }) {
		t.Errorf("the mean is %v, want %v", got, want)
	}
	closed(t, f)
}

// What a crash tore, or the disk made of it, is a gap and never a number.
func TestTorn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.ring")
	f := open(t, path)
	for s := range int64(3000) {
		if err := f.Add(begin+s, []float32{7, 7, 7}); err != nil {
			t.Fatal(err)
		}
	}
	closed(t, f)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		torn := slices.Clone(whole)
		for range 200 {
			at := headerSize + rnd.IntN(len(torn)-headerSize)
			for i := at; i < min(at+rnd.IntN(60), len(torn)); i++ {
				torn[i] = byte(rnd.Uint32())
			}
		}
		torn = torn[:headerSize+rnd.IntN(len(torn)-headerSize)]
		if err := os.WriteFile(path, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		f := open(t, path)
		for _, l := range levels {
			for _, p := range read(t, f, begin, begin+3600, l.step) {
				if p.Seconds > 0 && (p.At >= begin+3000 || p.Values[0] != 7) {
					t.Fatalf("step %d: %+v was never added", l.step, p)
				}
			}
		}
		closed(t, f)
	}
}

// A clock that jumps ahead and is set right again ends nothing.
func TestClock(t *testing.T) {
	f := open(t, filepath.Join(t.TempDir(), "a.ring"))
	for _, s := range []int64{begin, begin + 9*365*86400 + 1800, begin + 20, begin + 15, begin + 21} {
		if err := f.Add(s, []float32{1, 1, 1}); err != nil {
			t.Fatal(err)
		}
	}
	var known []int64
	for _, p := range read(t, f, begin, begin+30, 1) {
		if p.Seconds > 0 {
			known = append(known, p.At-begin)
		}
	}
	if !slices.Equal(known, []int64{0, 20, 21}) {
		t.Errorf("known are %v", known)
	}
	closed(t, f)
}

// What is of another layout is begun anew.
func TestLayout(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.ring")
	f := open(t, path)
	if err := f.Add(begin, []float32{1, 1, 1}); err != nil {
		t.Fatal(err)
	}
	closed(t, f)
	f, err := Open(path, Layout{Weights: []int{-1, -1}})
	if err != nil {
		t.Fatal(err)
	}
	if p := read(t, f, begin, begin+1, 1)[0]; p.Seconds != 0 || f.Last() != 0 {
		t.Errorf("%+v was read with another layout", p)
	}
	closed(t, f)
}
