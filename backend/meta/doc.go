// Package meta is a node's part in the replicated record: raft over wire, with
// package state as what raft agrees on.
//
// Every node may ask for a change (Apply) and for the record as it is now (View):
// the request goes to the leader, wherever that is, and what comes back is
// already in the asking node's own view. A change that was acknowledged is never
// lost while a majority of the voters keep their disks; one whose answer was lost
// is asked for again under the same request identifier and takes effect once.
// View is linearizable: it contains everything acknowledged, by any node, before
// it was called. Local is what this node knows, which may be old.
//
// The leader also grants each node a lease. While a node has one, nobody else is
// given its volumes and its machines are not started elsewhere; when it has run
// out, the node must stop serving by itself.
//
// Every wait has a bound: the caller's context, or one of the constants here.
// What cannot be done now fails with model.Unavailable.
package meta
