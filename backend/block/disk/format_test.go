package disk

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/model"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Samples of everything the formats have, with no two fields alike.
func sampleSuperblock(t *testing.T) superblock {
	t.Helper()
	s, err := geometry(1<<30, 16<<20)
	if err != nil {
		t.Fatal(err)
	}
	s.cluster, s.disk, s.salt, s.sequence = 0x1111, 0x2222, 0x3333, 0x4444
	s.tail = position{lsn: 0x5555, offset: 0x6000}
	return s
}

func sampleVersion() version {
	return version{
		epoch: 3, place: 4, mask: 0b101, stamp: model.Stamp{Generation: 5, Number: 6},
		sums: [model.BlocksPerPage]uint32{0: sumOf(bytes.Repeat([]byte{1}, blockSize)), 2: 0x77},
	}
}

func sampleRecords() ([]record, []byte) {
	k := pageKey{vol: 0xaaaa, column: 0xbb, page: 0xcc}
	op := model.Stamp{Generation: 7, Number: 8}
	return []record{
		{kind: recVersion, pageKey: k, ver: sampleVersion(), op: op, data: 0b1},
		{
			kind: recVersion, pageKey: k, op: op,
			ver: version{epoch: 9, place: noPlace, stamp: model.Stamp{Generation: 1, Number: 2}},
		},
		{kind: recGone, pageKey: k, ver: version{epoch: 10}, op: op},
		{kind: recRow, pageKey: pageKey{vol: 0xaaaa}, row: sampleRow()},
		{kind: recRowGone, pageKey: pageKey{vol: 0xdddd}},
		{kind: recRefs, ver: version{place: 11}, refs: 12},
		{kind: recSettled, pageKey: pageKey{vol: 0xaaaa, column: 0xbb}},
	}, bytes.Repeat([]byte{1}, blockSize)
}

func sampleRow() rowState {
	return rowState{
		generation: 7, last: 8, watermark: model.Stamp{Generation: 6, Number: 5}, promises: 4,
	}
}

func sampleBatch() []byte {
	rs, payload := sampleRecords()
	b := make([]byte, maxHeader)
	n := encodeBatch(b, header{salt: 0x3333, lsn: 0x5555, payload: 1}, rs)
	return append(b[:n], payload...)
}

// What clones bring: a version in a place that is shared, and the origins of columns.
func cloneRecords() []record {
	k := pageKey{vol: 0xaaaa, column: 0xbb, page: 0xc0}
	return []record{
		{kind: recOrigin, pageKey: pageKey{vol: 0xaaaa, column: 0xbb}, origin: 0xdddd, ver: version{epoch: 10}},
		{kind: recShared, pageKey: k, ver: sampleVersion()},
		{kind: recInherited, pageKey: k},
		{kind: recOrigin, pageKey: pageKey{vol: 0xaaaa, column: 0xbb}},
	}
}

func sampleUncertain() *uncertain {
	u := &uncertain{}
	u.add(madeKey{column: 1, page: 2, epoch: 3}, model.Stamp{Generation: 4, Number: 5})
	return u
}

// golden compares b with a file of hexadecimal text, or writes it. The bytes of a
// version never change: what was written once must be read for ever.
func golden(t *testing.T, name string, b []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	trimmed := bytes.TrimRight(b, "\x00")
	if *update {
		var text strings.Builder
		for rest := trimmed; len(rest) > 0; {
			n := min(32, len(rest))
			text.WriteString(hex.EncodeToString(rest[:n]) + "\n")
			rest = rest[n:]
		}
		if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, err := hex.DecodeString(strings.ReplaceAll(string(text), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(trimmed, want) {
		t.Errorf("%s: the format has changed", name)
	}
	out := make([]byte, len(b))
	copy(out, want)
	return out
}

// Each format is written as its golden file says, and what the file says is read.
func TestFormatsAreForEver(t *testing.T) {
	t.Run("superblock", func(t *testing.T) {
		want := sampleSuperblock(t)
		b := make([]byte, superSize)
		want.encode(b)
		got, err := decodeSuperblock(golden(t, "superblock.v1.hex", b))
		if err != nil || got != want {
			t.Errorf("read %+v, %v; want %+v", got, err, want)
		}
	})
	t.Run("batch", func(t *testing.T) {
		b := golden(t, "batch.v1.hex", sampleBatch())
		_, got, payload, err := decodeBatch(b, 0x3333, nil)
		want, data := sampleRecords()
		for i := range want[1:] {
			want[i+1].first = 1 // behind the block of the first
		}
		for i := range want { // where it comes to nothing
			if want[i].kind != recVersion {
				want[i].first = got[i].first
			}
		}
		opt := cmp.AllowUnexported(record{}, pageKey{}, version{}, rowState{})
		if diff := cmp.Diff(want, got, opt); diff != "" || err != nil || !bytes.Equal(payload, data) {
			t.Errorf("read %v (-want +got):\n%s", err, diff)
		}
	})
	t.Run("clones", func(t *testing.T) {
		b := make([]byte, maxHeader)
		n := encodeBatch(b, header{salt: 0x3333, lsn: 0x5555}, cloneRecords())
		_, got, _, err := decodeBatch(golden(t, "batchclones.v1.hex", b[:n]), 0x3333, nil)
		opt := cmp.AllowUnexported(record{}, pageKey{}, version{}, rowState{})
		if diff := cmp.Diff(cloneRecords(), got, opt); diff != "" || err != nil {
			t.Errorf("read %v (-want +got):\n%s", err, diff)
		}
		k := columnKey{vol: 0xaaaa, column: 0xbb}
		x := &origin{vol: 0xdddd, epoch: 10}
		key := golden(t, "originkey.v1.hex", originKey(tableOrigins, k))
		gk, vol, e, err := parseOrigin(key, golden(t, "originvalue.v1.hex", originValue(x)))
		if err != nil || gk != k || vol != x.vol || e != x.epoch {
			t.Errorf("read %+v, %v, %d, %v", gk, vol, e, err)
		}
		want := leafSet{0: 0b101, 63: 1 << 63}
		key = golden(t, "leafsetkey.v1.hex", leafSetKey(k, 7))
		gk, chunk, s, err := parseLeafSet(key, golden(t, "leafset.v1.hex", leafSetValue(&want)))
		if err != nil || gk != k || chunk != 7 || *s != want {
			t.Errorf("read %+v, %d, %v, %v", gk, chunk, s, err)
		}
	})
	t.Run("map", func(t *testing.T) {
		v := sampleVersion()
		k := pageKey{vol: 0xaaaa, column: 0xbb, page: 0xcc}
		key := golden(t, "mapkey.v1.hex", pageKeyOf(nil, k, v.epoch))
		if gk, e, ok := parsePageKey(key); gk != k || e != v.epoch || !ok {
			t.Errorf("read key %+v, %d, %v", gk, e, ok)
		}
		got, err := parseVersion(golden(t, "mapvalue.v1.hex", appendVersion(nil, &v)), v.epoch)
		if err != nil || got != v {
			t.Errorf("read %+v, %v; want %+v", got, err, v)
		}
	})
	t.Run("row", func(t *testing.T) {
		u := sampleUncertain()
		st, made, err := parseRow(golden(t, "row.v1.hex", rowValue(sampleRow(), u)))
		if err != nil || st != sampleRow() || len(made) != 1 || u.made[made[0].madeKey] != made[0].op {
			t.Errorf("read %+v, %+v, %v", st, made, err)
		}
	})
}

// What a checkpoint keeps of the space is for ever too.
func TestSpaceIsForEver(t *testing.T) {
	words := []uint64{0x0123456789abcdef, 1 << 63}
	key := golden(t, "spacekey.v1.hex", chunkKey(0xaabb))
	value := golden(t, "spacevalue.v1.hex", chunkValue(words))
	s := newSpace(128)
	if string(key) != "b\x00\x00\xaa\xbb" || !s.load(0, value) || s.used[0] != words[0] || s.used[1] != words[1] {
		t.Errorf("read %x, %x", key, s.used)
	}
	if s.free != 128-33 || s.room[0] != 128-33 {
		t.Errorf("%d and %d places are free", s.free, s.room[0])
	}
	golden(t, "countkey.v1.hex", countKey(columnKey{vol: 0xaaaa, column: 0xbb}))
}

// No bytes make the decoder of a superblock fail otherwise than by an error, and
// what it takes is written the same way again.
func FuzzSuperblock(f *testing.F) {
	b := make([]byte, superSize)
	(&superblock{
		cluster: 1, disk: 2, size: 1 << 30, journal: 16 << 20, pages: 16112, sequence: 9,
	}).encode(b)
	f.Add(b)
	f.Add(make([]byte, superSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeSuperblock(b)
		if err != nil {
			return
		}
		again := make([]byte, superSize)
		s.encode(again)
		if got, err := decodeSuperblock(again); err != nil || got != s {
			t.Errorf("%+v became %+v, %v", s, got, err)
		}
	})
}

// No bytes make the decoder of a batch fail otherwise than by an error, whatever
// its sums say, and the records it takes are within the batch.
func FuzzBatch(f *testing.F) {
	f.Add(sampleBatch(), true)
	f.Add(sampleBatch()[:blockSize], false)
	b := make([]byte, maxHeader)
	f.Add(b[:encodeBatch(b, header{salt: 0x3333, lsn: 1}, cloneRecords())], true)
	f.Fuzz(func(t *testing.T, b []byte, sum bool) {
		b = bytes.Clone(b)
		if h, err := decodeHeader(b); err == nil && sum && h.used <= len(b) {
			fixSum(b, h)
		}
		h, rs, payload, err := decodeBatch(b, 0x3333, nil)
		if err != nil {
			return
		}
		for i := range rs {
			if rs[i].data != 0 && rs[i].first >= len(payload)/blockSize {
				t.Errorf("record %d of %+v has data beyond the payload", i, h)
			}
		}
		again := make([]byte, maxHeader)
		encodeBatch(again, h, rs)
		again = append(again[:h.headers*blockSize], payload...)
		if _, rs2, _, err := decodeBatch(again, h.salt, nil); err != nil || len(rs2) != len(rs) {
			t.Errorf("%+v is read otherwise the second time: %v", h, err)
		}
	})
}

// No bytes make the decoders of the map's values panic.
func FuzzMapValues(f *testing.F) {
	v := sampleVersion()
	f.Add(appendVersion(nil, &v))
	f.Add(rowValue(sampleRow(), sampleUncertain()))
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := parseVersion(b, 1); err == nil && len(appendVersion(nil, &v)) != len(b) {
			t.Error("a version is written longer than it was read")
		}
		if st, made, err := parseRow(b); err == nil {
			u := &uncertain{}
			u.load(made)
			if n := len(rowValue(st, u)); n > len(b) {
				t.Error("a row is written longer than it was read")
			}
		}
	})
}
