// Package vhost gives one virtual machine a disk: it is the back end of QEMU's
// vhost-user-blk device, with the virtqueues in memory shared with the guest and
// a Device of the block engine behind them.
//
// The guest is hostile. Everything it can write - rings, descriptors, request
// headers - is copied before it is looked at and checked before it is used, and
// guest memory that cannot be touched costs the guest its disk and nobody else
// anything. QEMU is trusted to send the messages in the order the protocol has,
// not to send sensible numbers.
//
// What a caller may rely on: the socket exists only while a connection will be
// answered; QEMU's questions are answered from memory, whatever the Device does;
// the Device is acquired when QEMU enables the first ring and released when the
// last request has come back from it; a request is answered once, and one that
// was not answered when the process died is carried out again when QEMU
// reconnects. docs/VHOST.md has the rules and the test that holds each.
//
// The shared-memory protocol is written for machines that order stores as amd64
// does, which are the ones Drystone runs guests on.
package vhost
