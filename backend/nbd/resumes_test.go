package nbd

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/unixsock"
)

// A stuck device carries nothing out before it is told to stop.
type stuck struct{ began chan struct{} }

func (stuck) Size() int64 { return 1 << 20 }
func (s stuck) ReadAt(ctx context.Context, _ []byte, _ int64) error {
	s.began <- struct{}{}
	<-ctx.Done()
	return ctx.Err()
}

func (s stuck) WriteAt(ctx context.Context, _ *iobuf.Buffer, _ int64) error {
	return s.ReadAt(ctx, nil, 0)
}
func (stuck) Discard(context.Context, int64, int64) error     { return nil }
func (stuck) WriteZeroes(context.Context, int64, int64) error { return nil }
func (stuck) Flush(context.Context) error                     { return nil }

// A server whose clients ask again ends at once, and answers nothing that was not carried
// out: an error would reach the guest as its disk's.
func TestResumes(t *testing.T) {
	dev := stuck{make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Listen(ctx, Config{Path: filepath.Join(t.TempDir(), "s"), Owner: unixsock.Owner{}, Device: dev, Resumes: true})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "unix", s.l.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	be := binary.BigEndian
	hello := be.AppendUint32(nil, fixedNewstyle|noZeroes)
	hello = be.AppendUint64(hello, magicOption)
	hello = be.AppendUint32(hello, uint32(optExportName))
	hello = be.AppendUint32(hello, 0)
	if _, err := conn.Write(hello); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 18+10)); err != nil {
		t.Fatal(err)
	}
	request := be.AppendUint32(nil, 0x25609513)
	request = be.AppendUint16(request, 0)
	request = be.AppendUint16(request, uint16(cmdRead))
	request = be.AppendUint64(request, 7)
	request = be.AppendUint64(request, 0)
	request = be.AppendUint32(request, 512)
	if _, err := conn.Write(request); err != nil {
		t.Fatal(err)
	}
	<-dev.began
	began := time.Now()
	cancel()
	if n, err := conn.Read(make([]byte, 64)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("what was in flight is answered with %d bytes, %v", n, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > drainMax/2 {
		t.Errorf("it took %v", took)
	}
}
