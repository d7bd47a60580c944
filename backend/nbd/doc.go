// Package nbd serves one Device to NBD clients over a UNIX socket: to QEMU for
// CD-ROMs and legacy buses, to qemu-img for import and export, and to the
// outside tools that test the block engine.
//
// It speaks fixed newstyle with structured replies, base:allocation and what other
// metadata contexts the device has, to several connections at once that all see each
// other's finished writes (CAN_MULTI_CONN). It has no TLS and no authentication: who
// may open the socket may read and write the device. Requests of one connection run concurrently and
// are answered as they finish; their number, their bytes and the number of
// connections are bounded, and a client beyond a bound waits.
package nbd
