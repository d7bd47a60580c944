package vhost

import (
	"sync/atomic"
	"time"
)

// Stats describes a Server now and counts since it was made.
type Stats struct {
	Connected bool // QEMU is there
	Running   int  // rings that requests are taken from
	InFlight  int  // requests now

	// Parked requests were left behind in rings that QEMU stopped while the
	// Device was stalled. The guest must not be saved or moved while there are
	// any: they would be lost.
	Parked int

	// Failed rings take no requests until the guest resets the device: it broke
	// the protocol, or its memory could not be touched.
	Failed int

	Reads, Writes         uint64
	Flushes               uint64
	Discards, WriteZeroes uint64
	ReadBytes, WriteBytes uint64
	ReadTime, WriteTime   time.Duration // summed over finished requests
	Errors                uint64        // requests answered with an error
	Resubmitted           uint64        // requests found in flight after a reconnect
}

type counters struct {
	connected             atomic.Bool
	running, inFlight     atomic.Int64
	parked, failed        atomic.Int64
	reads, writes         atomic.Uint64
	flushes               atomic.Uint64
	discards, zeroes      atomic.Uint64
	readBytes, writeBytes atomic.Uint64
	readTime, writeTime   atomic.Int64
	errors, resubmitted   atomic.Uint64
}

// Stats returns the present state and what was done so far.
func (s *Server) Stats() Stats {
	c := &s.stats
	return Stats{
		Connected: c.connected.Load(), Running: int(c.running.Load()),
		InFlight: int(c.inFlight.Load()), Parked: int(c.parked.Load()),
		Failed: int(c.failed.Load()),
		Reads:  c.reads.Load(), Writes: c.writes.Load(), Flushes: c.flushes.Load(),
		Discards: c.discards.Load(), WriteZeroes: c.zeroes.Load(),
		ReadBytes: c.readBytes.Load(), WriteBytes: c.writeBytes.Load(),
		ReadTime: time.Duration(c.readTime.Load()), WriteTime: time.Duration(c.writeTime.Load()),
		Errors: c.errors.Load(), Resubmitted: c.resubmitted.Load(),
	}
}

// finished counts a request that was answered.
func (c *counters) finished(q *request, status byte) {
	took := int64(time.Since(q.began))
	if status == statusIOError {
		c.errors.Add(1)
	}
	switch q.kind {
	case blkIn:
		c.reads.Add(1)
		c.readBytes.Add(q.inSize - 1)
		c.readTime.Add(took)
	case blkOut:
		c.writes.Add(1)
		c.writeBytes.Add(q.outSize - blkHeader)
		c.writeTime.Add(took)
	case blkFlush:
		c.flushes.Add(1)
	case blkDiscard:
		c.discards.Add(1)
	case blkWriteZeroes:
		c.zeroes.Add(1)
	}
}
