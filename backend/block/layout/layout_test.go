package layout

import (
	"math/rand/v2"
	"testing"

	"drystone.example/drystone/backend/model"
)

const unit = model.StripeUnit

func TestSplit(t *testing.T) {
	for _, tc := range []struct {
		name   string
		off, n model.Bytes
		want   []Extent
	}{
		{"nothing", 4096, 0, nil},
		{"inside-one-unit", 8192, 4096, []Extent{{0, 2, 1, 0}}},
		{"across-a-unit", unit - 4096, 8192, []Extent{{0, 255, 1, 0}, {1, 0, 1, 4096}}},
		{"across-a-row", 4*unit - 4096, 8192, []Extent{{3, 255, 1, 0}, {0, 256, 1, 4096}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Split(4, tc.off, tc.n)
			if len(got) != len(tc.want) {
				t.Fatalf("Split(4, %d, %d) = %v, want %v", tc.off, tc.n, got, tc.want)
			}
			for i := range got {
				if got[i] != tc.want[i] {
					t.Errorf("extent %d = %v, want %v", i, got[i], tc.want[i])
				}
			}
		})
	}
}

// Every block of a volume lands on exactly one block of one column, Offset is
// the way back, and Range is what Split says, column by column.
func TestSplitCoversOnce(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	for range 200 {
		columns := 1 << rng.IntN(6)
		off := model.Bytes(rng.IntN(64*256)) * model.BlockSize
		n := model.Bytes(rng.IntN(64*256)) * model.BlockSize
		covered := make([]uint64, columns)
		var sum model.Bytes
		for _, e := range Split(columns, off, n) {
			if got := Offset(columns, e.Column, e.Start); got != off+e.Offset || e.Offset != sum {
				t.Fatalf("Offset(%d, %d, %d) = %d, want %d", columns, e.Column, e.Start, got, off+e.Offset)
			}
			start, count := Range(columns, e.Column, off, n)
			if e.Start < start || uint64(e.Start)+uint64(e.Count) > uint64(start)+count {
				t.Fatalf("Range(%d, %d, %d, %d) = %d+%d leaves out %+v", columns, e.Column, off, n, start, count, e)
			}
			covered[e.Column] += uint64(e.Count)
			sum += model.Bytes(e.Count) * model.BlockSize
		}
		for c, want := range covered {
			if _, count := Range(columns, c, off, n); count != want {
				t.Fatalf("Range(%d, %d, %d, %d) covers %d blocks, Split %d", columns, c, off, n, count, want)
			}
		}
		if sum != n {
			t.Fatalf("Split(%d, %d, %d) covers %d", columns, off, n, sum)
		}
	}
}

// A range that is not aligned covers its whole blocks only.
func TestRangeUnaligned(t *testing.T) {
	if start, count := Range(4, 0, 512, 8192); start != 1 || count != 1 {
		t.Errorf("Range = %d+%d, want 1+1", start, count)
	}
}

func TestPages(t *testing.T) {
	for size, want := range map[model.Bytes]uint32{unit: 16, 4 * unit: 16, 4*unit + 512: 32} {
		if got := Pages(4, size); got != want {
			t.Errorf("Pages(4, %d) = %d, want %d", size, got, want)
		}
	}
}
