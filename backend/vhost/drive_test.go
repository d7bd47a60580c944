package vhost

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// What tests/bench asks for: any back end's socket, and a job in fio's words.
var (
	driveSocket  = flag.String("drive.socket", "", "drive the back end at this socket")
	driveReads   = flag.Int("drive.reads", 100, "percent of the requests that read")
	driveRandom  = flag.Bool("drive.random", true, "anywhere; else one behind the other")
	driveBlock   = flag.Int("drive.block", 4096, "bytes of a request")
	driveDepth   = flag.Int("drive.depth", 16, "requests under way")
	driveSize    = flag.Int64("drive.size", 1<<30, "bytes of the disk")
	driveRuntime = flag.Duration("drive.runtime", 200*time.Millisecond, "how long")
)

// A driven is what a drive came to.
type driven struct {
	IOs    int     `json:"ios"`
	IOPS   float64 `json:"iops"`
	Bytes  float64 `json:"bytes"` // per second
	Median float64 `json:"p50_us"`
	Slow   float64 `json:"p99_us"`
}

// The front end drives a back end as a guest's driver does, with a number of requests
// under way, and prints what it came to: its own, or the one that it is told.
func TestDrive(t *testing.T) {
	path := *driveSocket
	if path == "" {
		path = filepath.Join(t.TempDir(), "s")
		start(t, Config{
			Path: path, Size: *driveSize, Release: func() {},
			Acquire: func(context.Context) (Device, error) { return nowhere{}, nil },
		})
	}
	v := newVMM(t, path, 1)
	v.dial()
	v.negotiate()
	d := v.drive()
	if d.IOs < *driveDepth || d.Median > d.Slow {
		t.Errorf("a drive came to %+v", d)
	}
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = fmt.Fprintf(os.Stdout, "drive: %s\n", text)
}

// negotiate starts the device with what both sides know. (handshake and run insist on
// what our back end offers.)
func (v *vmm) negotiate() {
	v.t.Helper()
	offered := binary.LittleEndian.Uint64(v.ask(getFeatures, nil))
	protocol := binary.LittleEndian.Uint64(v.ask(getProtocolFeatures, nil)) & protocolOffered
	v.send(setProtocolFeatures, u64(protocol))
	v.features &= offered
	v.send(setOwner, nil)
	v.must(setFeatures, u64(v.features))
	v.setMemory(lowRegion, highRegion)
	for i := range v.queues {
		v.prepareRing(i)
	}
	for i := range v.queues {
		v.enable(i, true)
	}
}

// A slot is one request that is under way or about to be.
type slot struct {
	read, write *op
	under       *op // one of them, or nil
	head        uint64
	begun       time.Time
}

// newSlot makes the chains of a slot; they have the header and the data in common.
func (v *vmm) newSlot() *slot {
	q := v.queues[0]
	head := q.head(blkIn, 0)
	data, status := segment{v.alloc(uint64(*driveBlock)), uint32(*driveBlock)}, segment{v.alloc(1), 1}
	for i, b := 0, v.at(data.guest, uint64(*driveBlock)); i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], rand.Uint64())
	}
	s := &slot{head: head.guest}
	s.read = q.chain([]segment{head}, []segment{data, status}, false)
	s.write = q.chain([]segment{head, data}, []segment{status}, false)
	s.read.status, s.write.status = status.guest, status.guest
	return s
}

// drive runs the job.
func (v *vmm) drive() driven {
	q := v.queues[0]
	slots := make([]*slot, *driveDepth)
	for i := range slots {
		slots[i] = v.newSlot()
	}
	blocks := *driveSize / int64(*driveBlock)
	next := int64(0)
	var took []time.Duration
	begun := time.Now()
	end := begun.Add(*driveRuntime)
	for under := 0; ; {
		now := time.Now()
		for _, s := range slots {
			if s.under == nil && now.Before(end) {
				if next++; *driveRandom {
					next = rand.Int64N(blocks)
				}
				v.begin(s, uint64(next%blocks)*uint64(*driveBlock)/512)
				under++
			}
		}
		if under == 0 {
			break
		}
		v.await(q)
		now = time.Now()
		for _, s := range slots {
			if s.under != nil && s.under.done {
				if status := v.at(s.under.status, 1)[0]; status != 0 {
					v.t.Fatalf("a request was answered with status %d", status)
				}
				took, s.under = append(took, now.Sub(s.begun)), nil
				under--
			}
		}
	}
	seconds := time.Since(begun).Seconds()
	slices.Sort(took)
	n := len(took)
	return driven{
		IOs: n, IOPS: float64(n) / seconds, Bytes: float64(n) * float64(*driveBlock) / seconds,
		Median: took[n/2].Seconds() * 1e6, Slow: took[n*99/100].Seconds() * 1e6,
	}
}

// begin makes a slot's request available.
func (v *vmm) begin(s *slot, sector uint64) {
	kind := uint32(blkIn)
	if s.under = s.read; rand.IntN(100) >= *driveReads {
		s.under, kind = s.write, blkOut
	}
	b := v.at(s.head, blkHeader)
	binary.LittleEndian.PutUint32(b, kind)
	binary.LittleEndian.PutUint64(b[8:], sector)
	v.at(s.under.status, 1)[0] = 0xff
	s.under.done, s.begun = false, time.Now()
	v.queues[0].publish(s.under)
}

// await waits until something was answered.
func (v *vmm) await(q *vring) {
	free, before := q.free, q.completed
	for q.collect(); q.completed == before; q.collect() {
		if !readable(q.call, 15000) {
			v.t.Fatal("no interrupt in 15 s")
		}
		drainEvent(q.call)
	}
	q.free = free // the chains are the slots'
}
