// Package console lets people see and use the screens and serial ports of the
// machines of a node.
//
// A Desk is at the node that runs the machine; a Line is at the node to which a
// person came, and the wire is between them. A console is opened by a ticket, which
// the Desk makes and keeps in memory: 256 random bits, good for 30 seconds, once, for
// the user, the session, the machine and the kind of console it was made for.
//
// Any number of people, up to a bound, may watch a console; one of them at a time
// writes. Who writes is said when a console is opened and does not change for as
// long as it is: who takes over ends the console of who wrote before, so that QEMU
// lets go of the keys that were held, and nothing of two people is mixed. All are
// told who else is there.
//
// The invariant: a byte of a console that does not write never reaches its machine's
// keyboard, pointer or serial port. A serial port is not written to; of what a client
// of a screen sends, which is hostile, only whole messages of known kinds go on.
//
// What is said on a console is never logged.
package console
