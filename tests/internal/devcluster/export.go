package devcluster

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// An Export is a running `volume export` or `snapshot export`.
type Export struct {
	URI string // what it said it is ready at

	cmd  *exec.Cmd
	errs *bytes.Buffer // complete when done
	done chan error    // holds how it ended, once it has
	stop sync.Once
}

// Export serves a volume by a protocol, nbd or vhost, from a node, until Stop or
// the end of the test.
func (c *Cluster) Export(t *testing.T, protocol, name, node string) *Export {
	t.Helper()
	e, err := c.TryExport(t, protocol, name, node)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TryExport is Export where the cluster may refuse.
func (c *Cluster) TryExport(t *testing.T, protocol, name, node string) (*Export, error) {
	t.Helper()
	return c.export(t, "volume", "export", name, "--node", node,
		"--"+protocol, filepath.Join(c.Dir, name+"-"+node+".sock"))
}

// ExportSnapshot serves a snapshot, VOLUME@NAME, from a node, until Stop or the end of
// the test.
func (c *Cluster) ExportSnapshot(t *testing.T, ref, node string) *Export {
	t.Helper()
	e, err := c.export(t, "snapshot", "export", ref, "--node", node,
		"--nbd", filepath.Join(c.Dir, ref+"-"+node+".sock"))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (c *Cluster) export(t *testing.T, args ...string) (*Export, error) {
	t.Helper()
	// Until Stop, not as long as the context of a test that is about to end.
	cmd := c.command(context.Background(), args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	e := &Export{cmd: cmd, errs: &errs, done: make(chan error, 1)}
	line := make(chan string, 1)
	go func() { // ends with the process, which Stop ends
		in := bufio.NewReader(out)
		first, _ := in.ReadString('\n')
		line <- strings.TrimSpace(first)
		_, _ = in.WriteTo(&bytes.Buffer{})
		e.done <- cmd.Wait()
	}()
	t.Cleanup(e.Stop)
	select {
	case l := <-line:
		uri, ok := strings.CutPrefix(l, "ready ")
		if !ok {
			e.Stop()
			return nil, fmt.Errorf("%s export printed %q, %s", args[0], l, errs.String())
		}
		e.URI = uri
		return e, nil
	case <-time.After(time.Minute):
		return nil, errors.New("the export was not ready within a minute")
	}
}

// Ended waits until an export has ended by itself, and says how, with what it printed.
func (e *Export) Ended(t *testing.T) error {
	t.Helper()
	select {
	case err := <-e.done:
		e.done <- err
		if err != nil {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(e.errs.String()))
		}
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("the export did not end by itself within 30 s")
		return nil
	}
}

// Socket is the path in the URI of an export by NBD.
func (e *Export) Socket() string {
	_, path, _ := strings.Cut(e.URI, "socket=")
	return path
}

// Stop ends the export cleanly and returns when it has ended.
func (e *Export) Stop() {
	e.stop.Do(func() {
		_ = e.cmd.Process.Signal(syscall.SIGINT)
		select {
		case <-e.done: //nolint:errcheck // however it ended, it has
		case <-time.After(30 * time.Second):
			_ = e.cmd.Process.Kill()
			<-e.done //nolint:errcheck // it was killed
		}
	})
}
