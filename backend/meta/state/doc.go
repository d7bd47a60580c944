// Package state is the replicated record: what every node agrees the cluster is.
//
// A Store applies commands in the order of the log. Each takes effect whole or
// not at all, and has the same outcome on every node and every replay: there is
// no clock, no random number and no order of a map in it; time comes in the
// command's envelope. What a batch of commands changes is written to SQLite in
// one transaction, the audit rows included, and becomes visible at once as a new
// View. SQLite is the store of record: snapshots are read from it and restored
// into it. Its file is built anew at each start, so it is never synced.
//
// A View is an immutable picture of the record as of one index of the log.
// Taking one costs nothing, reading one takes no lock, and it stays as it was
// for as long as it is kept. What a View hands out is shared: treat it as
// read-only, also slices within.
package state
