// Command bugs plants mistakes in the code, one at a time, and runs the test that
// must catch each. It says how much the tests are worth: a mistake that no test
// notices is a rule that nothing holds.
//
// A mistake is a patch in this folder. Nothing in the tree is changed: the compiler
// is told to read the changed files elsewhere (go test -overlay), so what has been
// built before is used, and one mistake costs seconds. A mistake is caught when its
// test fails by a judgement of its own or by an assertion of the code (must.That);
// one that does not compile, hangs or crashes has shown nothing. The test must also
// pass without it.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bugs:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("bugs", flag.ContinueOnError)
	dir := flags.String("dir", "tests/bugs", "the folder with the patches")
	only := flags.String("run", "", "only those whose name matches")
	jobs := flags.Int("jobs", 2, "how many at a time")
	list := flags.Bool("list", false, "say what there is and run nothing")
	if err := flags.Parse(args); err != nil {
		return err
	}
	pattern, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	all, err := readBugs(os.DirFS(*dir))
	if err != nil {
		return err
	}
	var bugs []bug
	for _, b := range all {
		if pattern.MatchString(b.name) {
			bugs = append(bugs, b)
		}
	}
	if len(bugs) == 0 {
		return errors.New("there are none of that name")
	}
	if *list {
		for _, b := range bugs {
			fmt.Fprintf(out, "%-26s %s %-5s %s\n", b.name, b.level, b.hole, b.rule)
		}
		return nil
	}
	root, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("where am I: %w", err)
	}
	tmp, err := os.MkdirTemp("", "bugs-")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	g := &garden{root: root, tmp: tmp, out: out, sound: map[string]func() error{}}
	return errors.Join(g.tend(ctx, bugs, *jobs), os.RemoveAll(tmp))
}

// A garden is one run.
type garden struct {
	root, tmp string

	mu    sync.Mutex // guards what follows
	out   io.Writer
	loose []string                // not caught
	sound map[string]func() error // by test: whether it passes as it should
}

// tend plants each bug and prints a line for it.
func (g *garden) tend(ctx context.Context, bugs []bug, jobs int) error {
	began := time.Now()
	g.line("BUG", "LEVEL", "HOLE", "TOOK", "RESULT")
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(max(jobs, 1))
	for _, b := range bugs {
		group.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			start := time.Now()
			how, err := g.try(ctx, &b)
			if err != nil {
				how = "NOT CAUGHT: " + err.Error()
			}
			g.mu.Lock()
			defer g.mu.Unlock()
			if err != nil {
				g.loose = append(g.loose, b.name)
			}
			g.line(b.name, b.level, b.hole, time.Since(start).Round(time.Second/10).String(), how)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	fmt.Fprintf(g.out, "%d of %d caught in %s\n", len(bugs)-len(g.loose), len(bugs), time.Since(began).Round(time.Second))
	if len(g.loose) > 0 {
		return fmt.Errorf("not caught: %s", strings.Join(g.loose, ", "))
	}
	return nil
}

func (g *garden) line(name, level, hole, took, result string) {
	fmt.Fprintf(g.out, "%-26s %-5s %-5s %7s  %s\n", name, level, hole, took, result)
}

// try returns how the bug's test caught it.
func (g *garden) try(ctx context.Context, b *bug) (how string, err error) {
	files, err := b.plant(os.DirFS(g.root))
	if err != nil {
		return "", err
	}
	if err := g.passes(ctx, b.test); err != nil {
		return "", err
	}
	overlay, err := g.overlay(b.name, files)
	if err != nil {
		return "", err
	}
	r, err := g.test(ctx, append([]string{"-count=1", "-overlay", overlay}, b.test...))
	if err != nil {
		return "", err
	}
	switch {
	case r.broken != "":
		return "", fmt.Errorf("it does not compile: %s", r.broken)
	case r.hung:
		return "", errors.New("the test hangs")
	case r.crash != "":
		return "", fmt.Errorf("it crashes: %s", r.crash)
	case r.failed == "":
		return "", fmt.Errorf("%s passes", strings.Join(b.test, " "))
	}
	return r.failed + ": " + r.reason, nil
}

// passes reports whether a test passes on the tree as it is; it is run once.
func (g *garden) passes(ctx context.Context, test []string) error {
	key := strings.Join(test, " ")
	g.mu.Lock()
	once := g.sound[key]
	if once == nil {
		once = sync.OnceValue(func() error {
			r, err := g.test(ctx, test)
			switch {
			case err != nil:
				return err
			case !r.passed:
				return fmt.Errorf("%s does not pass without it: %s %s", key, r.failed, r.reason+r.broken+r.crash)
			}
			return nil
		})
		g.sound[key] = once
	}
	g.mu.Unlock()
	return once()
}

// overlay writes the changed files where the compiler is told to find them.
func (g *garden) overlay(name string, files map[string]string) (string, error) {
	dir := filepath.Join(g.tmp, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("make folder: %w", err)
	}
	replace := map[string]string{}
	for file, text := range files {
		to := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			return "", fmt.Errorf("write changed file: %w", err)
		}
		replace[filepath.Join(g.root, file)] = to
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", fmt.Errorf("encode overlay: %w", err)
	}
	to := filepath.Join(dir, "overlay.json")
	return to, os.WriteFile(to, text, 0o600)
}

// A result is what go test said.
type result struct {
	passed bool   // a test ran, and none failed
	broken string // why it did not compile
	hung   bool
	crash  string // a panic that is not an assertion
	failed string // the test that failed first
	reason string // its first words
}

const testTimeout = "20m"

func (g *garden) test(ctx context.Context, args []string) (*result, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json", "-vet=off", "-timeout", testTimeout}, args...)...)
	cmd.Dir = g.root
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, fmt.Errorf("run go test: %w", err)
	}
	r := judge(&out)
	if err != nil && *r == (result{}) {
		return nil, fmt.Errorf("go test says: %s: %w", strings.TrimSpace(stderr.String()), err)
	}
	r.passed = r.passed && err == nil
	return r, nil
}

// An event is a line of go test -json.
type event struct {
	Action, Test, Output string
}

// judge reads the events of a run.
func judge(events io.Reader) *result {
	r := &result{}
	said := map[string]string{} // by test, what it said first
	running := ""
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue
		}
		text := strings.TrimSpace(e.Output)
		switch {
		case e.Action == "build-output" && r.broken == "" && !strings.HasPrefix(text, "#"):
			r.broken = text
		case e.Action == "run":
			running = e.Test
		case e.Action == "fail" && e.Test != "" && r.failed == "":
			r.failed = e.Test
		case e.Action == "pass" && e.Test != "":
			r.passed = true
		case e.Action != "output":
		case strings.HasPrefix(text, "panic: test timed out"):
			r.hung = true
		case strings.HasPrefix(text, "panic: must: "): // its process ends without a word on the test
			r.failed, said[running] = running, text
		case strings.HasPrefix(text, "panic: "), strings.HasPrefix(text, "fatal error: "):
			r.crash = text
		case said[e.Test] == "" && strings.Contains(text, "_test.go:"):
			said[e.Test] = text
		}
	}
	r.passed = r.passed && r.failed == ""
	r.reason = shorten(said[r.failed])
	return r
}

// shorten leaves of a message what fits a line of the table.
func shorten(s string) string {
	if _, rest, ok := strings.Cut(s, "_test.go:"); ok {
		if _, text, ok := strings.Cut(rest, ": "); ok {
			s = text
		}
	}
	const limit = 90
	if r := []rune(s); len(r) > limit {
		return string(r[:limit]) + "…"
	}
	return s
}
