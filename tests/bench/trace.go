package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A tracer has the kernel note which system calls processes make, and what becomes of
// what they submit to io_uring. The processes know nothing of it.
type tracer struct{ dir string }

// The system calls that are of interest (amd64).
const (
	callRead   = 0
	callWrite  = 1
	callWritev = 20
	callSend   = 44
	callRecv   = 45
	callEnter  = 426 // io_uring_enter
)

const traceEvents = "raw_syscalls/sys_enter,raw_syscalls/sys_exit,io_uring/io_uring_submit_req,io_uring/io_uring_complete"

func newTracer() (*tracer, error) {
	t := &tracer{dir: "/sys/kernel/tracing/instances/drystone-bench"}
	if err := os.Mkdir(t.dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("trace: %w", err)
	}
	calls := "id==0||id==1||id==20||id==44||id==45||id==426"
	set := [][2]string{
		{"tracing_on", "0"},
		{"trace_clock", "mono"},
		{"buffer_size_kb", "32768"},
		{"events/raw_syscalls/sys_enter/filter", calls},
		{"events/raw_syscalls/sys_exit/filter", calls},
	}
	for e := range strings.SplitSeq(traceEvents, ",") {
		set = append(set, [2]string{"events/" + e + "/enable", "1"})
	}
	for _, s := range set {
		if err := t.set(s[0], s[1]); err != nil {
			return nil, errors.Join(err, t.close())
		}
	}
	return t, nil
}

func (t *tracer) set(name, value string) error {
	if err := os.WriteFile(filepath.Join(t.dir, name), []byte(value), 0o600); err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	return nil
}

func (t *tracer) close() error {
	if err := os.Remove(t.dir); err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	return nil
}

// A move is one thing that a process did or that happened to it.
type move struct {
	at   time.Duration
	pid  int
	kind moveKind
	fd   int // of a socket
	n    int // bytes
}

type moveKind int

const (
	sends     moveKind = iota // begins to write to a socket
	got                       // has read from one
	submits                   // enters the kernel with a request to a disk
	submitted                 // is back from there
	completed                 // the kernel says that the request is done
)

// moves reads what was noted of some processes, in order.
func (t *tracer) moves(of map[int]bool) ([]move, error) {
	f, err := os.Open(filepath.Join(t.dir, "trace"))
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	defer func() { _ = f.Close() }()
	p := parser{of: of, threads: threadsOf(of), fds: map[int]int{}, rings: map[string]int{}}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		p.line(lines.Text())
	}
	return p.out, lines.Err()
}

// threadsOf says of each thread of some processes whose it is.
func threadsOf(of map[int]bool) map[int]int {
	all := map[int]int{}
	for pid := range of {
		threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid)) // one that has ended has none
		for _, t := range threads {
			id, _ := strconv.Atoi(t.Name())
			all[id] = pid
		}
	}
	return all
}

// A parser reads the kernel's text.
type parser struct {
	of      map[int]bool
	threads map[int]int    // which process a thread is of
	fds     map[int]int    // of a thread: the socket of the call it is in
	rings   map[string]int // which process a ring is of
	out     []move
}

// line reads one, such as
//
//	drystoned-6244    [001] ..... 46974.242693: sys_exit: NR 0 = 4096
func (p *parser) line(s string) {
	head, rest, found := strings.Cut(s, ": ")
	before, _, numbered := strings.Cut(head, " [")
	event, text, named := strings.Cut(rest, ": ")
	if !found || !numbered || !named {
		return
	}
	before = strings.TrimRight(before, " ")
	thread, _ := strconv.Atoi(before[strings.LastIndexByte(before, '-')+1:])
	seconds, err := strconv.ParseFloat(head[strings.LastIndexByte(head, ' ')+1:], 64)
	if err != nil {
		return
	}
	m := move{at: time.Duration(seconds * 1e9), pid: p.threads[thread]}
	switch event {
	case "io_uring_submit_req":
		ring, _, _ := strings.Cut(text, ",")
		p.rings[ring] = m.pid
	case "io_uring_complete":
		ring, _, _ := strings.Cut(text, ",")
		_, result, _ := strings.Cut(text, "result ")
		result, _, _ = strings.Cut(result, ",")
		m.n, _ = strconv.Atoi(result)
		m.pid, m.kind = p.rings[ring], completed // it is noted in whatever context it happens
		p.add(m)
	case "sys_enter":
		p.enter(m, thread, text)
	case "sys_exit":
		p.exit(m, thread, text)
	}
}

func (p *parser) add(m move) {
	if p.of[m.pid] {
		p.out = append(p.out, m)
	}
}

func (p *parser) enter(m move, thread int, text string) {
	number, args, _ := strings.Cut(strings.TrimPrefix(text, "NR "), " (")
	call, _ := strconv.Atoi(number)
	a := strings.Split(args, ", ")
	if len(a) < 3 {
		return
	}
	fd, _ := strconv.ParseInt(a[0], 16, 64)
	n, _ := strconv.ParseInt(a[2], 16, 64)
	m.fd, m.n = int(fd), int(n)
	p.fds[thread] = m.fd
	switch call {
	case callEnter:
		m.kind = submits
		p.add(m)
	case callWrite, callWritev, callSend:
		m.kind = sends
		p.add(m)
	}
}

func (p *parser) exit(m move, thread int, text string) {
	number, result, _ := strings.Cut(strings.TrimPrefix(text, "NR "), " = ")
	call, _ := strconv.Atoi(number)
	m.n, _ = strconv.Atoi(result)
	m.fd = p.fds[thread]
	switch call {
	case callEnter:
		m.kind = submitted
		p.add(m)
	case callRead, callRecv:
		if m.n > 0 {
			m.kind = got
			p.add(m)
		}
	}
}
