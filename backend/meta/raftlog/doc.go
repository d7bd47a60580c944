// Package raftlog keeps raft's log and its few stable values on disk, in pebble.
//
// What raft may rely on: an append or a stable value that returned nil survives a
// crash. The first write or sync that fails latches the store: nothing is written
// any more, because what the disk holds is not known. Reads go on.
//
// A disk can also hang instead of failing. An append that takes longer than
// Deadline returns ErrHung, so that a leader steps down and the cluster gets
// another one, which raft alone would never see to. The append may still happen
// later: then it is taken back before anything else is written, so that the disk
// holds what raft believes. Stable values (the term, the vote) are waited for
// instead, because raft cannot go on without them.
package raftlog
