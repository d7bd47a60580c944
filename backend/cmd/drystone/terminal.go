package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/client"
)

// isTerminal reports whether a person is at the other end.
func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// rawTerminal passes every key on as it is; the function undoes that. What is not
// a terminal is left alone.
func rawTerminal(in io.Reader) (restore func(), err error) {
	f, ok := in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return func() {}, nil
	}
	old, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return nil, fmt.Errorf("use the terminal: %w", err)
	}
	return func() { term.Restore(int(f.Fd()), old) }, nil //nolint:errcheck // nothing is left to do
}

// readLine reads one line byte by byte, so that nothing behind it is taken.
func readLine(in io.Reader) (string, error) {
	var line strings.Builder
	var b [1]byte
	for line.Len() < 4096 {
		n, err := in.Read(b[:])
		if n == 1 && b[0] == '\n' {
			break
		}
		if n == 1 {
			line.WriteByte(b[0])
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", fmt.Errorf("read a line: %w", err)
		}
	}
	return strings.TrimSuffix(line.String(), "\r"), nil
}

// readPassword asks without showing what is typed; from a program it takes a line.
func (a *app) readPassword(prompt string) (string, error) {
	f, ok := a.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return readLine(a.in)
	}
	say(a.err, "%s", prompt)
	defer say(a.err, "\n")
	text, err := term.ReadPassword(int(f.Fd()))
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	return string(text), nil
}

// A bar shows how far long work is, on a terminal; elsewhere it shows nothing.
type bar struct {
	a     *app
	mu    sync.Mutex // guards the fields below; drawing is quick
	phase string
	total int64
	bar   *progressbar.ProgressBar
}

func (a *app) progress(phase string) *bar {
	b := &bar{a: a}
	b.set(phase, 0, 0)
	return b
}

// set shows a phase of the work with done of total; a total of zero is unknown.
func (b *bar) set(phase string, done, total int64) {
	if b.a.json || !isTerminal(b.a.err) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if total <= 0 {
		total = -1
	}
	if b.bar == nil || phase != b.phase || total != b.total {
		b.finish()
		b.phase, b.total = phase, total
		b.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(b.a.err), progressbar.OptionSetDescription(phase),
			progressbar.OptionShowBytes(true), progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionFullWidth(), progressbar.OptionClearOnFinish())
	}
	b.bar.Set64(done) //nolint:errcheck // a bar that cannot be drawn is not missed
}

// reader counts what is read through it as progress of the present phase.
func (b *bar) reader(r io.Reader) io.Reader { return &barReader{b: b, r: r} }

type barReader struct {
	b    *bar
	r    io.Reader
	done int64
}

func (r *barReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.done += int64(n)
	r.b.mu.Lock()
	if r.b.bar != nil {
		r.b.bar.Set64(r.done) //nolint:errcheck // a bar that cannot be drawn is not missed
	}
	r.b.mu.Unlock()
	return n, err //nolint:wrapcheck // it is the reader
}

func (b *bar) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.finish()
}

// finish takes the bar off the screen. The caller holds mu.
func (b *bar) finish() {
	if b.bar != nil {
		b.bar.Clear() //nolint:errcheck // a bar that cannot be drawn is not missed
		b.bar = nil
	}
}

// follow shows the progress of the cluster's task about an object until the
// function is called; on a terminal only.
func (a *app) follow(ctx context.Context, c *client.Client, object string) (stop func()) {
	if a.json || !isTerminal(a.err) {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	b := &bar{a: a}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer b.end()
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			tasks, err := c.Tasks(ctx)
			if err != nil {
				continue // the work itself will say what is wrong
			}
			for _, t := range tasks.Items {
				if t.Object == object && t.State == schema.TaskRunning {
					b.set(t.Kind, int64(t.Done), int64(t.Total))
				}
			}
		}
	}()
	return func() { cancel(); <-ended }
}
