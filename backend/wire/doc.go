// Package wire is how nodes talk to each other: one TCP port per node, TLS 1.3
// with certificates on both sides, and protocols told apart by ALPN. It carries
// framed streams for raft, block and others (Dial, Serve), and small calls in
// JSON (Call, Handle).
//
// What a caller may rely on: the peer of every connection, dialled or accepted,
// has proven which node of this cluster it is, and was a member when the
// connection began; Drop cuts what a node has when it stops being one. A
// connection that no longer works ends with an error in bounded time as long as
// somebody writes to it. Nothing an unknown peer does holds more than a socket
// for a few seconds.
//
// It does not judge what a peer asks for: that is up to each handler, and a
// handler must treat a peer's bytes as hostile, since one node may be
// compromised. docs/WIRE.md describes the bytes.
package wire
