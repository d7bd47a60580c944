// Package server puts a node's disks behind the wire: Server answers for the
// disks of this node, and a Client's Remotes stand for the disks of the others,
// with the same methods as *disk.Disk.
//
// What a holder may rely on: the ops of one volume reach Apply of the disk in
// the order they were handed to the Remote; every op is answered exactly once;
// an answer of model.Unavailable means that the op may or may not have been
// applied, and that sending it again is right, since a disk applies each number
// once. Nobody waits for a broken connection longer than stallAfter. Between the
// nodes of an idle volume there is no traffic.
//
// It judges no generation and no number: the disk does, when it applies. It does
// check that what came is well formed, that the disk is here, and, if told how,
// that the peer may hold the volume: a peer may be compromised.
//
// All volumes and disks of a pair of nodes share one connection, docs/WIRE.md
// describes its bytes. A disk that hangs holds up only its own requests.
package server
