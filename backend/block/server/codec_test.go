package server

import (
	"bytes"
	"errors"
	"flag"
	"math/bits"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/model"
)

func stamps(t *rapid.T, name string) model.Stamp {
	return model.Stamp{
		Generation: model.Generation(rapid.Uint64().Draw(t, name+" generation")),
		Number:     rapid.Uint64().Draw(t, name+" number"),
	}
}

func ops(t *rapid.T) *disk.Op {
	prev := rapid.Uint64Range(0, 1<<40).Draw(t, "prev")
	op := &disk.Op{
		Kind:       disk.Kind(rapid.IntRange(1, 5).Draw(t, "kind")),
		Volume:     model.VolumeID(rapid.Uint64Min(1).Draw(t, "volume")),
		Generation: model.Generation(rapid.Uint64().Draw(t, "generation")),
		Number:     prev + rapid.Uint64Range(1, 9).Draw(t, "step"),
		Prev:       prev,
		Watermark:  stamps(t, "watermark"),
		Column:     rapid.Uint32().Draw(t, "column"),
		Epoch:      model.Epoch(rapid.Uint32().Draw(t, "epoch")),
	}
	switch op.Kind {
	case disk.Write:
		op.Count = rapid.Uint64Range(1, uint64(maxBlocks)).Draw(t, "count")
		op.Block = layout.Block(rapid.Uint64Range(0, uint64(maxBlock)-op.Count).Draw(t, "block"))
	case disk.Discard:
		op.Count = rapid.Uint64Range(1, uint64(maxBlock)).Draw(t, "count")
		op.Block = layout.Block(rapid.Uint64Range(0, uint64(maxBlock)-op.Count).Draw(t, "block"))
	case disk.Copy:
		op.Page = rapid.Uint32().Draw(t, "page")
		op.Version = disk.Version{Page: op.Page, Epoch: op.Epoch, Stamp: stamps(t, "version"), Mask: rapid.Uint16().Draw(t, "mask")}
	case disk.Remove:
		op.Page = rapid.Uint32().Draw(t, "page")
	case disk.Mark:
	}
	for i := range dataBlocks(op) {
		op.Sums = append(op.Sums, uint32(i)*0x9e3779b9)
	}
	if op.Kind == disk.Copy {
		spread(&op.Version, op.Sums)
	}
	return op
}

// What is encoded is decoded as it was, whatever the op.
func TestOpRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := ops(t)
		meta := appendOp(nil, want)
		if len(meta) > maxMeta {
			t.Fatalf("the meta of %+v has %d bytes", want, len(meta))
		}
		got := disk.Op{Sums: make([]uint32, 3)}
		if err := decodeOp(meta, dataBlocks(want)*int(model.BlockSize), &got); err != nil {
			t.Fatalf("decodeOp of %+v: %v", want, err)
		}
		if len(got.Sums) == 0 {
			got.Sums = nil
		}
		if diff := cmp.Diff(want, &got); diff != "" {
			t.Fatal(diff)
		}
		for _, wrong := range []int{1, 4096 * (dataBlocks(want) + 1)} {
			if err := decodeOp(meta, wrong, &got); err == nil {
				t.Fatalf("%d bytes of data are accepted with %+v", wrong, want)
			}
		}
		cut := rapid.IntRange(0, len(meta)-1).Draw(t, "cut")
		if err := decodeOp(meta[:cut], dataBlocks(want)*int(model.BlockSize), &got); err == nil {
			t.Fatalf("an op cut to %d of %d bytes is accepted", cut, len(meta))
		}
	})
}

func TestListsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		version := func() (v disk.Version) {
			v.Page, v.Epoch = rapid.Uint32().Draw(t, "page"), model.Epoch(rapid.Uint32().Draw(t, "epoch"))
			v.Stamp, v.Mask = stamps(t, "stamp"), rapid.Uint16().Draw(t, "mask")
			for m := v.Mask; m != 0; m &= m - 1 {
				v.Sums[bits.TrailingZeros16(m)] = rapid.Uint32().Draw(t, "sum")
			}
			return v
		}
		p := disk.Promise{Watermark: stamps(t, "watermark")}
		l := disk.Listing{Next: rapid.Uint32().Draw(t, "next"), Done: rapid.Bool().Draw(t, "done")}
		for range rapid.IntRange(0, 20).Draw(t, "n") {
			p.Uncertain = append(p.Uncertain, disk.ColumnVersion{Column: rapid.Uint32().Draw(t, "column"), Version: version()})
			l.Versions = append(l.Versions, version())
		}
		gotP, err := decodePromise(encodePromise(p))
		if diff := cmp.Diff(p, gotP); err != nil || diff != "" {
			t.Fatalf("promise: %v %s", err, diff)
		}
		gotL, err := decodeListing(encodeListing(l))
		if diff := cmp.Diff(l, gotL); err != nil || diff != "" {
			t.Fatalf("listing: %v %s", err, diff)
		}
		b := encodeListing(l)
		b[rapid.IntRange(0, len(b)-1).Draw(t, "where")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if _, err := decodeListing(b); err == nil {
			t.Fatal("a flipped bit was not noticed")
		}
	})
}

func TestStatusRoundTrip(t *testing.T) {
	for _, want := range []error{
		nil, disk.ErrGap, disk.ErrClosed,
		&disk.CorruptError{Volume: 4, Column: 2, Blocks: []layout.Block{1, 2, 1 << 35}},
		model.Errorf(model.Fenced, "a newer generation"), model.Errorf(model.NoSpace, "full"),
		model.Errorf(model.NotFound, "x"), model.Errorf(model.Conflict, "x"), model.Errorf(model.Denied, "x"),
		model.Errorf(model.Corrupt, "x"), model.Errorf(model.Invalid, "x"), errors.New("unknown"),
	} {
		s := statusOf(want)
		b := []byte(nil)
		if want != nil {
			b = appendError(b, s, want)
		}
		r := reader{b: b, ok: true}
		got := r.readError(s)
		if !r.done() {
			t.Errorf("%v: the rest of the meta is wrong", want)
		}
		if model.CodeOf(got) != model.CodeOf(want) || errors.Is(want, disk.ErrGap) != errors.Is(got, disk.ErrGap) {
			t.Errorf("%v became %v", want, got)
		}
	}
}

// Whatever comes is refused or is an op that can be.
func FuzzDecodeOp(f *testing.F) {
	f.Add([]byte{}, 0)
	f.Add(appendOp(nil, &disk.Op{Kind: disk.Write, Volume: 1, Number: 1, Count: 1, Sums: []uint32{5}}), 4096)
	f.Add(appendOp(nil, &disk.Op{Kind: disk.Copy, Volume: 1, Number: 1, Version: disk.Version{Mask: 3}, Sums: []uint32{5, 6}}), 8192)
	f.Fuzz(func(t *testing.T, meta []byte, data int) {
		var op disk.Op
		if err := decodeOp(meta, data, &op); err != nil {
			return
		}
		if n := dataBlocks(&op); n > maxBlocks || data != n*4096 || len(op.Sums) != n {
			t.Errorf("accepted %+v with %d bytes", op, data)
		}
		if !bytes.Equal(appendOp(nil, &op), meta) {
			t.Errorf("%x is not how %+v is written", meta, op)
		}
	})
}

// Whatever comes in place of any other message, nothing breaks.
func FuzzDecodeOthers(f *testing.F) {
	f.Add(appendRead(nil, disk.Read{Volume: 1, Count: 4}))
	f.Add(appendPrepare(nil, disk.Prepare{Volume: 1, Generation: 2}))
	f.Add(appendPrepare(nil, disk.Prepare{Volume: 1, Generation: 2, Origin: &disk.Origin{Volume: 3, Columns: []uint32{4}}}))
	f.Add(appendList(nil, disk.List{Volume: 1, Max: 5}))
	f.Add(encodePromise(disk.Promise{Uncertain: make([]disk.ColumnVersion, 3)}))
	f.Add(encodeListing(disk.Listing{Versions: make([]disk.Version, 3)}))
	f.Add(appendError(nil, statusBlocks, &disk.CorruptError{Blocks: []layout.Block{3}}))
	f.Add(hello{low: 1, high: 2}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := decodeRead(b); err == nil && (q.Count < 1 || q.Count > maxBlocks) {
			t.Errorf("accepted %+v", q)
		}
		if l, err := decodeList(b); err == nil && l.Max > maxListed {
			t.Errorf("accepted %+v", l)
		}
		if p, err := decodePrepare(b); err == nil && !bytes.Equal(appendPrepare(nil, p), b) {
			t.Errorf("%x is not how %+v is written", b, p)
		}
		_, _ = decodeVersionQuery(b)
		_, _ = decodePromise(b)
		_, _ = decodeListing(b)
		_, _ = decodePromise(appendCRC(bytes.Clone(b)))
		_, _ = decodeListing(appendCRC(bytes.Clone(b)))
		_, _ = readHello(bytes.NewReader(b))
		for s := range 20 {
			r := reader{b: b, ok: true}
			_ = r.readError(status(s))
		}
		if len(b) >= headerSize {
			if h, err := parseHeader(b); err == nil && (h.meta > maxMeta || h.data > maxListData) {
				t.Errorf("accepted %+v", h)
			}
			_ = checkFrame(b)
		}
	})
}

var update = flag.Bool("update", false, "write the golden files anew")

// The bytes of version 1 never change.
func TestGoldenVersion1(t *testing.T) {
	op := &disk.Op{
		Kind: disk.Write, Volume: 0x1122334455667788, Generation: 3, Number: 77, Prev: 76,
		Watermark: model.Stamp{Generation: 3, Number: 70}, Column: 5, Epoch: 2, Block: 1000, Count: 2, Sums: []uint32{0xaabbccdd, 1},
	}
	cp := &disk.Op{
		Kind: disk.Copy, Volume: 1, Generation: 3, Number: 78, Prev: 77, Column: 5, Epoch: 1, Page: 9,
		Version: disk.Version{Stamp: model.Stamp{Generation: 2, Number: 8}, Mask: 0x8001}, Sums: []uint32{7, 8},
	}
	v := disk.Version{Page: 9, Epoch: 1, Stamp: model.Stamp{Generation: 2, Number: 8}, Mask: 0x8001}
	v.Sums[0], v.Sums[15] = 7, 8
	lost := *cp
	lost.Lost = 0x8000
	frames := map[string][]byte{
		"hello":   hello{low: 1, high: 1, instance: 0x0102030405060708}.encode(),
		"apply":   FrameBytes(uint8(kindApply), 0, 1, 0x99, appendOp(nil, op), make([]byte, 8192))[:headerSize+200],
		"copy":    FrameBytes(uint8(kindApply), 0, 2, 0x99, appendOp(nil, cp), nil),
		"lost":    FrameBytes(uint8(kindApply), 0, 2, 0x99, appendOp(nil, &lost), nil),
		"prepare": FrameBytes(uint8(kindPrepare), 0, 3, 0x99, appendPrepare(nil, disk.Prepare{Volume: 1, Generation: 4, Last: 78}), nil),
		"prepare-clone": FrameBytes(uint8(kindPrepare), 0, 7, 0x99, appendPrepare(nil, disk.Prepare{
			Volume: 1, Generation: 1, Origin: &disk.Origin{Volume: 0x22, Epoch: 6, Columns: []uint32{3, 7}},
		}), nil),
		"read":     FrameBytes(uint8(kindRead), 0, 4, 0x99, appendRead(nil, disk.Read{Volume: 1, Generation: 4, Column: 5, Block: 16, Count: 3, Epoch: 2}), nil),
		"list":     FrameBytes(uint8(kindList), 0, 5, 0x99, appendList(nil, disk.List{Volume: 1, Generation: 4, Column: 5, From: 1, To: 2, Max: 3}), nil),
		"digest":   FrameBytes(uint8(kindDigest), 0, 7, 0x99, appendList(nil, disk.List{Volume: 1, Generation: 4, Column: 5, From: 1, To: 2, Max: 1}), nil),
		"digested": encodeDigest(disk.Digest{Sum: [32]byte{1, 31: 2}, Versions: 300}),
		"version":  FrameBytes(uint8(kindReadVersion), 0, 6, 0x99, appendVersionQuery(nil, versionQuery{1, 4, 5, 9, 1}), nil),
		"promise":  encodePromise(disk.Promise{Watermark: model.Stamp{Generation: 4, Number: 78}, Uncertain: []disk.ColumnVersion{{Column: 5, Version: v}}}),
		"listing":  encodeListing(disk.Listing{Versions: []disk.Version{v}, Next: 10, Done: true}),
		"corrupt":  FrameBytes(uint8(kindRead|answerBit), uint8(statusBlocks), 4, 0x99, appendError(nil, statusBlocks, &disk.CorruptError{Volume: 1, Column: 5, Blocks: []layout.Block{16}}), nil),
		"refused":  FrameBytes(uint8(kindApply|answerBit), uint8(statusFenced), 1, 0x99, appendError(nil, statusFenced, model.Errorf(model.Fenced, "newer")), nil),
	}
	var back disk.Op
	if err := decodeOp(appendOp(nil, &lost), 8192, &back); err != nil || back.Kind != disk.Copy || back.Lost != 0x8000 {
		t.Errorf("a copy with lost blocks: %+v, %v", back, err)
	}
	for _, bad := range []uint16{0x0002, 0xffff} { // they are blocks of the version
		if lost.Lost = bad; decodeOp(appendOp(nil, &lost), 8192, &back) == nil {
			t.Errorf("lost blocks %#x of %#x are taken", bad, lost.Version.Mask)
		}
	}
	for name, got := range frames {
		path := filepath.Join("testdata", "v1", name)
		if *update {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is\n%x, was\n%x", name, got, want)
		}
	}
}
