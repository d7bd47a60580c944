package sock_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"drystone.example/drystone/backend/sock"
)

// pair is two ends of a socket, of a given network.
func pair(t *testing.T, network string) (a, b net.Conn) {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	var d net.Dialer
	if a, err = d.DialContext(t.Context(), network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	a, b = sock.New(a), sock.New(b)
	t.Cleanup(func() {
		_ = a.Close()
		_ = b.Close()
	})
	return a, b
}

// TestAllArrives sends more than any socket holds, by each way of writing, to a
// reader with a small buffer, while as much comes back.
func TestAllArrives(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			a, b := pair(t, network)
			sent := make([]byte, 8<<20)
			for i := range sent {
				sent[i] = byte(i ^ i>>9 ^ i>>17)
			}
			go func() {
				_, _ = io.Copy(b, struct{ io.Reader }{b})
				_ = b.Close()
			}()
			wrote := make(chan error, 1)
			go func() { wrote <- write(a, sent) }()
			got := make([]byte, len(sent))
			if _, err := io.ReadFull(a, got); err != nil {
				t.Fatal(err)
			}
			if err := <-wrote; err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, sent) {
				t.Fatal("what came back is not what was sent")
			}
		})
	}
}

// write sends p as thousands of buffers, some of them empty, and the rest at once.
func write(c net.Conn, p []byte) error {
	var list net.Buffers
	half := len(p) / 2
	for at := 0; at < half; {
		n := min(at%3000, half-at)
		list = append(list, p[at:at+n])
		if n == 0 {
			list = append(list, p[at:at+1])
			n = 1
		}
		at += n
	}
	if err := sock.WriteBuffers(c, &list); err != nil {
		return err
	}
	if len(list) != 0 {
		return errors.New("buffers are left")
	}
	_, err := c.Write(p[half:])
	return err
}

// TestEnds: a reader hears of the end, a deadline and its own Close as it does
// from the net package.
func TestEnds(t *testing.T) {
	a, b := pair(t, "tcp")
	var buf [16]byte
	if err := a.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Read(buf[:]); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("after the deadline: %v", err)
	}
	if err := a.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := io.ReadFull(a, buf[:]); n != 1 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("read %d bytes, %v", n, err)
	}
	ended := make(chan error, 1)
	c, d := pair(t, "unix")
	_ = d
	go func() {
		_, err := c.Read(buf[:])
		ended <- err
	}()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Fatalf("after Close: %v", err)
	}
}

// TestBroken: writing to a peer that is gone says so.
func TestBroken(t *testing.T) {
	a, b := pair(t, "unix")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	var op *net.OpError
	if _, err := a.Write([]byte("x")); !errors.As(err, &op) || op.Op != "write" {
		t.Fatalf("writing to nobody: %v", err)
	}
}
