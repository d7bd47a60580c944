package vhost

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"drystone.example/drystone/backend/iobuf"
)

// The test binary is also a back end that can be killed: with these variables
// set it serves a file and does nothing else.
const (
	envSocket = "VHOST_TEST_SOCKET"
	envState  = "VHOST_TEST_STATE"
	envFile   = "VHOST_TEST_FILE"
)

func TestMain(m *testing.M) {
	if os.Getenv(envSocket) == "" {
		os.Exit(m.Run()) //nolint:forbidigo // this is main
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	err := serveFile(ctx, os.Getenv(envSocket), os.Getenv(envState), os.Getenv(envFile))
	stop()
	if err != nil {
		slog.Error("back end", "err", err)
		os.Exit(1) //nolint:forbidigo // this is main
	}
}

func serveFile(ctx context.Context, socket, state, file string) error {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	s, err := Listen(ctx, Config{
		Path: socket, State: state, Size: info.Size(), Serial: "drystone-test",
		Acquire: func(context.Context) (Device, error) { return &fileDisk{f, file + ".hold"}, nil },
		Release: func() {},
		Log:     slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// A fileDisk is a Device on a file. While a file with its name and ".hold" is
// there, requests that begin in the first sector wait, and say so with another file.
type fileDisk struct {
	f    *os.File
	hold string
}

func (d *fileDisk) wait(ctx context.Context, off int64) error {
	held := func() bool { _, err := os.Stat(d.hold); return err == nil }
	for off < 512 && ctx.Err() == nil && held() {
		if err := os.WriteFile(d.hold+"ing", nil, 0o600); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return ctx.Err()
}

func (d *fileDisk) Size() int64 {
	info, err := d.f.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}

func (d *fileDisk) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := d.wait(ctx, off); err != nil {
		return err
	}
	_, err := d.f.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (d *fileDisk) WriteAt(ctx context.Context, b *iobuf.Buffer, off int64) error {
	if err := d.wait(ctx, off); err != nil {
		return err
	}
	_, err := d.f.WriteAt(b.Bytes, off)
	return err
}

func (d *fileDisk) Discard(ctx context.Context, off, n int64) error {
	return d.WriteZeroes(ctx, off, n)
}

func (d *fileDisk) WriteZeroes(_ context.Context, off, n int64) error {
	_, err := d.f.WriteAt(make([]byte, n), off)
	return err
}

func (d *fileDisk) Flush(context.Context) error { return nil }

// A backend is such a process.
type backend struct {
	t                   *testing.T
	socket, state, file string
	cmd                 *exec.Cmd
}

// newBackend starts one on a new file.
func newBackend(t *testing.T, size int64) *backend {
	t.Helper()
	dir := t.TempDir()
	b := &backend{t: t, socket: dir + "/s", state: dir + "/state", file: dir + "/disk"}
	if err := os.WriteFile(b.file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(b.file, size); err != nil {
		t.Fatal(err)
	}
	b.start()
	t.Cleanup(b.kill)
	return b
}

func (b *backend) start() {
	b.t.Helper()
	b.cmd = exec.Command(os.Args[0])
	b.cmd.Env = append(os.Environ(), envSocket+"="+b.socket, envState+"="+b.state,
		envFile+"="+b.file)
	b.cmd.Stderr = b.t.Output()
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
}

// kill ends the process without a warning, if it runs.
func (b *backend) kill() {
	if b.cmd == nil {
		return
	}
	_ = b.cmd.Process.Kill()
	_ = b.cmd.Wait() // says only that it was killed
	b.cmd = nil
}

// end ends it politely.
func (b *backend) end() {
	b.t.Helper()
	_ = b.cmd.Process.Signal(syscall.SIGTERM)
	if err := b.cmd.Wait(); err != nil {
		b.t.Errorf("the back end ended with %v", err)
	}
	b.cmd = nil
}

// holding reports whether a request has been held.
func (b *backend) holding() bool { _, err := os.Stat(b.file + ".holding"); return err == nil }

func (b *backend) hold(on bool) {
	b.t.Helper()
	var err error
	if on {
		err = os.WriteFile(b.file+".hold", nil, 0o600)
	} else {
		err = os.Remove(b.file + ".hold")
	}
	if err != nil {
		b.t.Fatal(err)
	}
}
