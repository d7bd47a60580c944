package wire

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// A Network makes connections. Tests put a simulated one in place of TCP.
// Addresses are host:port.
type Network interface {
	Listen(ctx context.Context, addr string) (net.Listener, error)
	Dial(ctx context.Context, addr string) (net.Conn, error)
}

// How soon a dead TCP peer is noticed: an idle connection after about 15 s, one
// with data under way after userTimeout.
const (
	keepAliveIdle     = 9 * time.Second
	keepAliveInterval = 2 * time.Second
	keepAliveCount    = 3
	userTimeout       = 10 * time.Second
)

// TCP is the Network of production: no delay, keepalive, and data that is not
// acknowledged in time ends the connection.
type TCP struct {
	// Local is the address to dial from; the zero Addr lets the kernel choose.
	Local netip.Addr
}

var keepAlive = net.KeepAliveConfig{
	Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount,
}

// Listen implements Network.
func (TCP) Listen(ctx context.Context, addr string) (net.Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: keepAlive, Control: setUserTimeout}
	return lc.Listen(ctx, "tcp", addr)
}

// Dial implements Network.
func (n TCP) Dial(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: keepAlive, Control: setUserTimeout}
	if n.Local.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(n.Local, 0))
	}
	return d.DialContext(ctx, "tcp", addr)
}

// tcpFor returns TCP that dials from the address it listens on, so that both
// ends of a connection are known by the address of their node.
func tcpFor(listen string) TCP {
	at, err := netip.ParseAddrPort(listen)
	if err != nil || at.Addr().IsUnspecified() {
		return TCP{}
	}
	return TCP{Local: at.Addr()}
}
