package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"time"
)

// Where the time of a lone request goes: the kernel notes when each process sends,
// receives and submits (tracer), and what it noted is cut into stages along the way
// that was the longest.

// A stages is one kind of request, along one way.
type stages struct {
	Request string   `json:"request"`
	Count   int      `json:"count"`
	Stages  []spread `json:"stages"` // in order; together they are the whole
}

// showStages measures and prints the stages of lone requests, and the floor.
func (b *bench) showStages(ctx context.Context) error {
	floor, err := b.floor(ctx)
	if err != nil {
		return err
	}
	if err := b.printStages(stages{Request: "the floor: the machine, without any server", Stages: floor}); err != nil {
		return err
	}
	for _, j := range []job{
		{name: "write", random: true, block: small, depth: 1}, {name: "read", reads: 100, random: true, block: small, depth: 1},
	} {
		moves, err := b.trace(ctx, j)
		if err != nil {
			return err
		}
		for _, s := range cutStages(j.name, moves, b.cluster.daemons()[0]) {
			if err := b.printStages(s); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bench) printStages(s stages) error {
	if b.json {
		return b.encode(s)
	}
	b.say("\n%-60s %7s %7s us", s.Request, "p10", "p50")
	for _, one := range s.Stages {
		b.say("%-60s %7.0f %7.0f", one.What, one.Low, one.Median)
	}
	if s.Count > 0 {
		b.say("%-60s %7d", "requests", s.Count)
	}
	return nil
}

// trace runs a job and has the last second of it noted.
func (b *bench) trace(ctx context.Context, j job) (moves []move, err error) {
	t, err := newTracer()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	args := append([]string{
		"--name=stages", "--thread", "--ioengine=nbd", "--uri=" + b.sides.ours.uri, "--size=" + strconv.FormatInt(b.size, 10),
		"--randrepeat=0", "--norandommap", "--time_based", fmt.Sprintf("--runtime=%d", int(b.runtime.Seconds())),
	}, j.fio()...)
	fio := exec.CommandContext(ctx, "fio", args...) //nolint:gosec // our own arguments
	if err := fio.Start(); err != nil {
		return nil, fmt.Errorf("start fio: %w", err)
	}
	defer func() { err = errors.Join(err, fio.Wait()) }()
	select {
	case <-time.After(b.runtime - 1500*time.Millisecond):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := t.set("tracing_on", "1"); err != nil {
		return nil, err
	}
	time.Sleep(time.Second)
	if err := t.set("tracing_on", "0"); err != nil {
		return nil, err
	}
	of := map[int]bool{fio.Process.Pid: true}
	for _, pid := range b.cluster.daemons() {
		of[pid] = true
	}
	return t.moves(of)
}

// A copy is one disk's part in a request, seen by the process that it is in.
type copyOf struct {
	sent, got, submits, submitted, completed, answers, heard time.Duration
}

// A request is what happened from one of fio's requests to the next.
type request struct {
	began, got, answers, ended time.Duration
	copies                     map[int]*copyOf // by process
}

const (
	headerOfNBD = 28
	ofBlocks    = 4000 // bytes of a frame with a block in it, at least
)

// A cutter takes moves apart.
type cutter struct {
	holder int
	fio    int
	export int             // the holder's socket to fio
	peers  map[int]int     // the holder's sockets to others: which process
	blocks map[[2]int]bool // process and socket: it carries blocks
	now    *request
	done   []*request
}

// cutStages finds the requests in what was noted, and their stages.
func cutStages(kind string, moves []move, holder int) []stages {
	c := &cutter{holder: holder, peers: map[int]int{}, blocks: map[[2]int]bool{}}
	c.learn(moves)
	for _, m := range moves {
		c.take(m)
	}
	var here, there []*request
	for _, r := range c.done {
		if last, pid := r.last(holder); last == nil {
			continue
		} else if pid == holder {
			here = append(here, r)
		} else {
			there = append(there, r)
		}
	}
	return []stages{
		c.stages("a lone "+kind+", the copy in another process last", there),
		c.stages("a lone "+kind+", the copy of the holder itself last", here),
	}
}

// learn finds out which sockets are whose: those that carry blocks, and of two that
// carry the same frame at the same time, which belong together.
func (c *cutter) learn(moves []move) {
	votes := map[[2]int]int{}
	sent := 0
	for _, m := range moves {
		carries := m.n >= ofBlocks && (m.kind == got || m.kind == sends)
		switch {
		case m.kind == sends && m.n == headerOfNBD && m.pid != c.holder && c.fio == 0:
			c.fio = m.pid
		case m.pid == c.fio:
		case m.pid == c.holder && m.kind == got && (m.n == headerOfNBD || m.n == headerOfNBD+small):
			c.export = m.fd
		case carries:
			c.blocks[[2]int{m.pid, m.fd}] = true
		}
	}
	for _, m := range moves {
		if m.pid == c.fio || !c.blocks[[2]int{m.pid, m.fd}] || m.kind != got && m.kind != sends {
			continue
		}
		if m.pid == c.holder && m.kind == sends {
			sent = m.fd
		} else if m.pid != c.holder && m.kind == got && sent != 0 {
			votes[[2]int{sent, m.pid}]++
		}
	}
	for v, n := range votes {
		if n > votes[[2]int{v[0], c.peers[v[0]]}] {
			c.peers[v[0]] = v[1]
		}
	}
}

// take adds one move to the request under way.
func (c *cutter) take(m move) {
	if m.pid == c.fio {
		switch {
		case m.kind == sends && m.n == headerOfNBD:
			if c.now != nil {
				c.done = append(c.done, c.now)
			}
			c.now = &request{began: m.at, copies: map[int]*copyOf{}}
		case m.kind == got && c.now != nil:
			c.now.ended = m.at
		}
		return
	}
	r := c.now
	if r == nil {
		return
	}
	socket := m.kind == got || m.kind == sends
	switch {
	case m.pid == c.holder && socket && m.fd == c.export:
		if m.kind == got {
			r.got = m.at
		} else {
			r.answers = m.at
		}
	case m.pid == c.holder && socket:
		if peer := c.peers[m.fd]; peer != 0 {
			set(m, sends, &r.of(peer).sent)
			set(m, got, &r.of(peer).heard)
		}
	case socket:
		if c.blocks[[2]int{m.pid, m.fd}] {
			set(m, got, &r.of(m.pid).got)
			set(m, sends, &r.of(m.pid).answers)
		}
	default:
		set(m, submits, &r.of(m.pid).submits)
		set(m, submitted, &r.of(m.pid).submitted)
		set(m, completed, &r.of(m.pid).completed)
	}
}

// set keeps the first time that something happened.
func set(m move, kind moveKind, at *time.Duration) {
	if m.kind == kind && *at == 0 {
		*at = m.at
	}
}

func (r *request) of(pid int) *copyOf {
	if r.copies[pid] == nil {
		r.copies[pid] = &copyOf{}
	}
	return r.copies[pid]
}

// last is the copy that the answer waited for; nil: not all of it was noted, or it was
// disturbed by something else.
func (r *request) last(holder int) (last *copyOf, pid int) {
	if r.got == 0 || r.ended == 0 {
		return nil, 0
	}
	var at time.Duration
	for p, c := range r.copies {
		done := c.heard
		if p == holder {
			done = c.completed
		}
		if done > at {
			at, last, pid = done, c, p
		}
	}
	if last == nil || !rising(r.marks(last, pid == holder)) {
		return nil, 0
	}
	return last, pid
}

func rising(times []time.Duration) bool {
	for i, t := range times {
		if t == 0 || i > 0 && t < times[i-1] {
			return false
		}
	}
	return true
}

// marks are the ends of the stages.
func (r *request) marks(c *copyOf, here bool) []time.Duration {
	if here {
		return []time.Duration{r.began, r.got, c.submits, c.completed, r.answers, r.ended}
	}
	return []time.Duration{r.began, r.got, c.sent, c.got, c.submits, c.completed, c.answers, c.heard, r.answers, r.ended}
}

var (
	stagesHere = []string{
		"fio sends, the holder has it", "the holder: until it submits to its disk", "the disk",
		"the holder: until it answers", "to fio",
	}
	stagesThere = []string{
		"fio sends, the holder has it", "the holder: until it sends the frame", "the way to the other process",
		"there: until it submits to the disk", "the disk", "there: until it answers", "the way back",
		"the holder: until it answers", "to fio",
	}
)

// stages makes the table of some requests.
func (c *cutter) stages(title string, of []*request) stages {
	s := stages{Request: title, Count: len(of)}
	names := stagesThere
	var times [][]time.Duration
	var whole []time.Duration
	for _, r := range of {
		last, pid := r.last(c.holder)
		if pid == c.holder {
			names = stagesHere
		}
		marks := r.marks(last, pid == c.holder)
		if times == nil {
			times = make([][]time.Duration, len(names))
		}
		for i := range names {
			times[i] = append(times[i], marks[i+1]-marks[i])
		}
		whole = append(whole, r.ended-r.began)
	}
	for i := range times {
		s.Stages = append(s.Stages, spreadOf(names[i], times[i]))
	}
	s.Stages = append(s.Stages, spreadOf("all of it", whole))
	return s
}
