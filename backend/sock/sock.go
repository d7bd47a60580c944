// Package sock makes stream sockets cheap to use where many small messages pass.
//
// Go tells its scheduler of every system call, and the scheduler takes the
// processor away from a call that lasts longer than 20 us: a thread is woken to go
// on with it, and another when the call is done. Sending a message over loopback
// lasts about that long, so under load each one cost two switches between threads.
// A call on a non-blocking socket does not wait, though: it may as well be made as
// any other piece of code is.
package sock

import (
	"bufio"
	"net"
	"runtime"
)

// New returns c with Reads and Writes that the scheduler is not told of. Where c
// is no socket of the operating system, or not on Linux, it returns c itself. As
// opposed to other net.Conns it has one reader and one writer at a time.
func New(c net.Conn) net.Conn { return direct(c) }

// WriteBuffers writes all of the buffers to a Conn of New, as net.Buffers.WriteTo
// does, and uses them up.
func WriteBuffers(c net.Conn, b *net.Buffers) error { return writeBuffers(c, b) }

// Yield lets what was read be worked on before the reader looks for more: looking
// costs a call that mostly finds nothing, and whoever has something to do would wait
// for it. It does nothing while there is more in the buffer.
func Yield(in *bufio.Reader) {
	if in.Buffered() == 0 {
		runtime.Gosched()
	}
}
