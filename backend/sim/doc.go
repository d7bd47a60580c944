// Package sim has whole nodes in one testing/synctest bubble, with faults: the real
// record and raft, the real wire with its TLS, the real block protocol, disks, holders
// and agents, on a network and drives in memory. It has tests only.
//
// Some nodes keep a disk, others take the volume in turns, as the front ends of guests
// do. What is not here: guests, gossip (who is up is known at once) and the API.
package sim
