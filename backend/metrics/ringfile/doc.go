// Package ringfile keeps numbers of one thing over years in one file of fixed size.
//
// A file has four rings: seconds for an hour, ten seconds for a day, minutes for thirty
// days and hours for two years. A moment has its place in each ring by its time alone,
// so there is nothing to keep but the places themselves: no head, no index, nothing to
// mend after a crash. Every place says of when it is and carries a checksum; what is
// torn, stale or was never written is a gap. Nothing is synced: a crash of the machine
// loses what its kernel had not written yet, which are seconds.
//
// A coarser ring is computed of the next finer one, means weighted by how many seconds
// they cover, so that a restart in between loses nothing.
//
// A file is sparse: what a thing was not there for takes no room.
package ringfile
