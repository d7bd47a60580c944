package hosts

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// A box is a shell with namespaces of its own that waits at its standard input. It ends,
// and all that is in it with it, when that is closed: at the latest when the process that
// made the box ends, however it does.
type box struct {
	pid   int // as seen from outside
	in    io.Closer
	ended chan struct{}
}

// The shell says which process it is, by the machine's own /proc, does what it is to do,
// and takes over what is orphaned, as the first process of a machine does.
const (
	says  = "set -eu\nread -r pid rest < /proc/self/stat\n"
	waits = "\necho \"$pid\"\nexec > /dev/null\nwhile read -r line; do :; done\n"
)

// open makes a box with those namespaces, by unshare's words for them, and returns when
// the script in it was run.
func open(namespaces []string, script string, args ...string) (*box, error) {
	args = append([]string{"bash", "-c", says + script + waits, "host"}, args...)
	cmd := exec.CommandContext(context.Background(), "unshare", append(namespaces, args...)...) //nolint:gosec // ours
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var errs strings.Builder
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("make namespaces: %w", err)
	}
	b := &box{in: in, ended: make(chan struct{})}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err == nil {
		b.pid, err = strconv.Atoi(strings.TrimSpace(line))
	}
	go func() { // ends with the box
		_ = cmd.Wait() // it is killed, or its input ends
		close(b.ended)
	}()
	if err != nil {
		b.kill()
		<-b.ended
		return nil, fmt.Errorf("set up namespaces: %w: %s", err, errs.String())
	}
	return b, nil
}

// kill ends everything in the box at once. It does not wait.
func (b *box) kill() {
	if b.pid > 0 {
		_ = syscall.Kill(b.pid, syscall.SIGKILL) // it may have ended
	}
	_ = b.in.Close()
}

// command is a program of the machine that is to run in the box's namespaces.
func (b *box) command(namespaces []string, name string, args ...string) *exec.Cmd {
	words := append([]string{"--target", strconv.Itoa(b.pid)}, namespaces...)
	return exec.CommandContext(context.Background(), "nsenter", append(append(words, name), args...)...) //nolint:gosec // ours
}

// run runs a program in the box and returns what it prints.
func (b *box) run(namespaces []string, name string, args ...string) (string, error) {
	out, err := b.command(namespaces, name, args...).Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return "", fmt.Errorf("%s %v: %w\n%s", name, args, err, exit.Stderr)
	}
	return string(out), err
}

// processes lists the processes of the box whose command line has all these words, as
// seen from outside.
func (b *box) processes(words ...string) (pids []int) {
	ours, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", b.pid))
	if err != nil {
		return nil
	}
	all, _ := filepath.Glob("/proc/[0-9]*")
next:
	for _, dir := range all {
		space, err := os.Readlink(dir + "/ns/pid")
		if err != nil || space != ours {
			continue
		}
		text, err := os.ReadFile(dir + "/cmdline") //nolint:gosec // of a process
		if err != nil {
			continue
		}
		line := strings.Split(string(text), "\x00")
		for _, want := range words {
			if !has(line, want) {
				continue next
			}
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// has reports whether a command line has a word, by itself or as the end of a path.
func has(line []string, word string) bool {
	for _, l := range line {
		if l == word || strings.HasSuffix(l, "/"+word) {
			return true
		}
	}
	return false
}
