package vhost

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
)

// record makes a queue's record in ordinary memory, aligned like a mapping.
func record(num uint16) inflightQueue {
	words := make([]uint64, inflightShape{queues: 1, size: num}.bytes()/8)
	return unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(words)*8)
}

// Wherever a process is killed while it takes and answers chains out of order,
// recover returns the chains that were taken and are not in the used ring, in the
// order they were taken, and the next process goes on from there.
func TestRecoverAfterEveryStep(t *testing.T) {
	const num = 8
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	q := record(num)
	used := uint16(65530) // soon wraps
	open, counter := q.recover(num, used)
	if len(open) > 0 {
		t.Fatalf("a new record has %d open", len(open))
	}
	for step := range 5000 {
		steps := 1 + rnd.IntN(20)
		for range steps {
			// One access of ring.take or ring.finish after another, cut off anywhere.
			if len(open) < num && (len(open) == 0 || rnd.IntN(2) == 0) {
				head := uint16(rnd.IntN(num))
				for slices.Contains(open, head) {
					head = (head + 1) % num
				}
				q.begin(head, counter)
				counter++
				open = append(open, head)
				continue
			}
			i := rnd.IntN(len(open))
			head, cut := open[i], rnd.IntN(4)
			if cut == 3 {
				break
			}
			q.ending(head)
			if cut == 0 {
				break
			}
			used++
			open = slices.Delete(open, i, i+1)
			if cut == 1 {
				break
			}
			q.ended(head, used)
		}
		got, next := q.recover(num, used)
		if diff := cmp.Diff(slices.Clone(open), got, cmp.Transformer("nil", func(s []uint16) []uint16 {
			return append([]uint16{}, s...)
		})); diff != "" {
			t.Fatalf("step %d: open (-want +got):\n%s", step, diff)
		}
		for _, head := range open {
			if taken := load64(q, q.desc(head)+8); taken >= next {
				t.Fatalf("step %d: the next counter is %d; chain %d has %d", step, next, head, taken)
			}
		}
		counter = next
	}
}

// A record that makes no sense is taken for new; nothing in it leads outside.
func TestRecoverNonsense(t *testing.T) {
	const num = 8
	for _, tc := range []struct {
		name  string
		state inflightState
		used  uint16
		open  bool // what is marked may be returned
	}{
		{"new", inflightState{}, 5, false},
		{"of another version", inflightState{version: 2, num: num, used: 5}, 5, false},
		{"of another size", inflightState{version: 1, num: 4, used: 5}, 5, false},
		{"of a ring that was reset", inflightState{version: 1, num: num, used: 500}, 0, false},
		{"with a batch outside", inflightState{version: 1, num: num, batch: 60000, used: 5}, 6, true},
	} {
		q := record(num)
		for i := range uint16(num) {
			q.set(i, true, 60000)
			store64(q, q.desc(i)+8, uint64(100-i))
		}
		q.setState(tc.state)
		heads, _ := q.recover(num, tc.used)
		if (len(heads) > 0) != tc.open || len(heads) > num {
			t.Errorf("%s: %v open", tc.name, heads)
		}
		if got := q.state(); got.version != 1 || got.num != num || got.used != tc.used {
			t.Errorf("%s: left as %+v", tc.name, got)
		}
	}
}

// The layout is the protocol's, whoever wrote the record.
func TestInflightLayout(t *testing.T) {
	q := record(128)
	q.begin(3, 0x1122334455667788)
	q.setState(inflightState{version: 1, num: 128, batch: 7, used: 9})
	q.ending(3)
	q.ended(3, 10)
	le := binary.LittleEndian
	type layout struct {
		Version, Num, Batch, Used, Next uint16
		Inflight                        byte
		Counter                         uint64
	}
	got := layout{
		le.Uint16(q[8:]), le.Uint16(q[10:]), le.Uint16(q[12:]), le.Uint16(q[14:]),
		le.Uint16(q[16+3*16+6:]), q[16+3*16], le.Uint64(q[16+3*16+8:]),
	}
	want := layout{1, 128, 3, 10, 7, 0, 0x1122334455667788}
	if got != want {
		t.Errorf("layout %+v, want %+v", got, want)
	}
	if got, want := (inflightShape{queues: 2, size: 3}).bytes(), uint64(2*64); got != want {
		t.Errorf("2 queues of 3 take %d bytes, want %d", got, want)
	}
}

// The state file reads back, now and for ever.
func TestStateFormat(t *testing.T) {
	n := negotiated{features: 0x1_7000_0000, protocol: protocolOffered}
	if got, ok := decodeNegotiated(n.encode()); !ok || got != n {
		t.Errorf("reads back as %+v, %v", got, ok)
	}
	b := n.encode()
	for i := range b {
		torn := slices.Clone(b)
		torn[i] ^= 1
		if _, ok := decodeNegotiated(torn); ok {
			t.Errorf("byte %d changed: accepted", i)
		}
	}
}
