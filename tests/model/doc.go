// Package model is the block engine's rules as something that can be run: one
// column of one volume, its disks with their journals, its record in raft, and
// the holders that come and go. It is a specification, not a simulation: it knows
// nothing of time, of the wire or of bytes, and shares no code with the engine.
// Change it first when a rule changes.
//
// A State is everything at one moment, and a step is one thing that may happen
// next. The test takes every step from every state within small bounds (Bound),
// then long random walks within wide ones, and holds the invariants of
// invariants.go in each state it meets. Each Mistake leaves one rule out, and must
// be caught.
//
// What the steps stand for in backend/block and backend/meta:
//
//	acquire, lease          meta/lease.go, meta/admit.go, state.volumeAcquire
//	propose, raft, hear     volume/commit.go, members.go (adopt), state.volumeMembers
//	prepare                 volume/takeover.go, promise.go, disk.Prepare
//	roll forward, serve     volume/takeover.go
//	write, complete, read   volume/write.go, job.go, row.go, read.go
//	drop, join, activate    volume/commit.go (planColumn)
//	fill, copies            volume/fill.go
//	forget                  volume/tombs.go
//	delete snapshot, trim   state.snapshotDelete, volume/trim.go
//	arrive, sync            disk/commit.go, compose.go
//	checkpoint              disk/keeper.go
//	crash, replay           disk/journal.go, replay.go
//
// Three things need no steps. A message stays in the State until it cannot matter
// any more, so it may be late, or never come. What a disk has made durable stays
// so, hence a lost answer is a holder that looks later. And a row that is sent
// again after a broken connection is a message that was late.
//
// An old holder lives on beside the new one (Bound.Overlap) with whatever it knew:
// it completes what is in flight, fills, proposes. A holder's view of the record
// is its own: answers of raft come late or never (Bound.Delay). A disk loses what
// it had not made durable (Bound.Journal): batches in flight, blocks in place, map
// entries not flushed, in any combination.
//
// Not in a State: several columns, writes over several pages, places and their reuse,
// damaged data, full disks, and the collection of what no record names.
//
// Clones have a model of their own, a Family: one page of an origin and of its clone on
// each disk, with the places they share. It takes for granted what the first one shows of
// a single volume, so raft answers at once and only the origin's writes are under way. Its
// steps stand for:
//
//	make the clone          agent/clone.go, state.volumeClone, volume/cut.go
//	acquire, ask, serve     volume/takeover.go (origin), disk.Prepare
//	promise and note        disk/origin.go (note)
//	detach                  agent/clone.go, state.volumeDetach
//	inherit                 disk/origin.go (inherit, inheritAll)
//	write, arrive, trim     disk/origin.go (mustInherit)
//	free                    agent/garbage.go, state.Pinned, disk/origin.go (bequeath)
//	drop, let go, fill      volume/commit.go, fill.go
//
// Not in a Family: clones of clones, two clones of one origin, a leaf of several pages.
package model
