package metrics

import (
	"context"
	"time"

	"drystone.example/drystone/backend/model"
)

// An IOCount is what a disk or a guest has done since it started to count.
type IOCount struct {
	Reads, Writes         uint64
	ReadBytes, WriteBytes uint64
	ReadTime, WriteTime   time.Duration // all operations' latencies added up
}

// A DiskCount is one disk's counters and fill.
type DiskCount struct {
	ID         model.DiskID
	Size, Used model.Bytes
	IO         IOCount
}

// A GuestCount is one running guest's counters and memory.
type GuestCount struct {
	ID     model.VMID
	CPUs   int
	CPU    time.Duration // of all its processors
	Memory model.Bytes   // used
	IO     IOCount
}

// A Source counts what happens on this node. Both methods are called once a
// second; they must answer from memory and return slices they do not change after.
type Source interface {
	CountDisks() []DiskCount
	CountGuests() []GuestCount
}

// Peers reaches the other nodes.
type Peers interface {
	// Others is the members without this node that seem to be up; Members, all of them.
	Others() []model.NodeID
	Members() []model.NodeID

	// Samples is what Metrics.Samples(after) returns on another node.
	Samples(ctx context.Context, node model.NodeID, after int64) ([]Sample, error)

	// Past is what Metrics.OwnPast returns on another node.
	Past(ctx context.Context, node model.NodeID, ask PastAsk) ([]Point, error)
}

// A Sample is one node's second. It is what crosses the wire between nodes.
type Sample struct {
	At     int64   `json:"t"` // Unix milliseconds, by the clock of the node
	Host   Host    `json:"h"`
	Disks  []Disk  `json:"d,omitempty"`
	Guests []Guest `json:"g,omitempty"`
}

// A Host is a machine's processors, memory and network.
type Host struct {
	CPUs     int     `json:"n"`
	CPU      float32 `json:"c"` // of all processors, 0 to 1
	MemUsed  uint64  `json:"u"`
	MemTotal uint64  `json:"m"`
	NetRx    float32 `json:"r"` // bytes per second
	NetTx    float32 `json:"t"`
}

// A Rate is what was done per second, and how long one operation took.
type Rate struct {
	ReadIOPS  float32 `json:"ri,omitempty"`
	WriteIOPS float32 `json:"wi,omitempty"`
	ReadBps   float32 `json:"rb,omitempty"`
	WriteBps  float32 `json:"wb,omitempty"`
	ReadLat   float32 `json:"rl,omitempty"` // seconds
	WriteLat  float32 `json:"wl,omitempty"`
}

// A Disk is one disk's second.
type Disk struct {
	ID   model.DiskID `json:"i"`
	Used model.Bytes  `json:"u"`
	Size model.Bytes  `json:"s"`
	Rate Rate         `json:"o,omitzero"`
}

// A Guest is one guest's second.
type Guest struct {
	ID   model.VMID  `json:"i"`
	CPU  float32     `json:"c"` // of its own processors, 0 to 1
	Used model.Bytes `json:"u"`
	Rate Rate        `json:"o,omitzero"`
}

// values is how many numbers a sample has, for bounds on answers.
func (s Sample) values() int { return 7 + 9*(len(s.Disks)+len(s.Guests)) }

// rate makes a Rate of two counts, or zero if the counter started anew.
func rate(before, now IOCount, took time.Duration) Rate {
	if took <= 0 || now.Reads < before.Reads || now.Writes < before.Writes ||
		now.ReadBytes < before.ReadBytes || now.WriteBytes < before.WriteBytes {
		return Rate{}
	}
	perSecond := func(n uint64) float32 { return float32(float64(n) / took.Seconds()) }
	each := func(d time.Duration, n uint64) float32 {
		if n == 0 || d < 0 {
			return 0
		}
		return float32(d.Seconds() / float64(n))
	}
	reads, writes := now.Reads-before.Reads, now.Writes-before.Writes
	return Rate{
		ReadIOPS:  perSecond(reads),
		WriteIOPS: perSecond(writes),
		ReadBps:   perSecond(now.ReadBytes - before.ReadBytes),
		WriteBps:  perSecond(now.WriteBytes - before.WriteBytes),
		ReadLat:   each(now.ReadTime-before.ReadTime, reads),
		WriteLat:  each(now.WriteTime-before.WriteTime, writes),
	}
}

// add sums what two things did; latencies are weighted by their operations.
func (r Rate) add(o Rate) Rate {
	mean := func(a, b, na, nb float32) float32 {
		if na+nb == 0 {
			return 0
		}
		return (a*na + b*nb) / (na + nb)
	}
	return Rate{
		ReadIOPS:  r.ReadIOPS + o.ReadIOPS,
		WriteIOPS: r.WriteIOPS + o.WriteIOPS,
		ReadBps:   r.ReadBps + o.ReadBps,
		WriteBps:  r.WriteBps + o.WriteBps,
		ReadLat:   mean(r.ReadLat, o.ReadLat, r.ReadIOPS, o.ReadIOPS),
		WriteLat:  mean(r.WriteLat, o.WriteLat, r.WriteIOPS, o.WriteIOPS),
	}
}
