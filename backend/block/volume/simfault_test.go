package volume

import (
	"math/rand/v2"
	"slices"
	"time"
)

// defaultProfile draws the shape of a world from its seed.
func defaultProfile(seed uint64) simProfile {
	r := rand.New(rand.NewPCG(seed, 11))
	p := simProfile{
		nodes: 3 + r.IntN(2), disks: 1 + r.IntN(2), copies: 2, columns: 2,
		length: 40 * time.Second, think: 60 * time.Millisecond, clients: 4,
		store: newDiskStore,
	}
	if r.IntN(3) == 0 {
		p.copies = 3
	}
	for _, f := range allFaults() {
		if f.weight = r.IntN(f.weight + 1); f.weight > 0 { // swarm: some faults are absent
			p.faults = append(p.faults, f)
		}
	}
	p.faults = append(p.faults, simFault{"nothing", 1, func(*simWorld) {}})
	return p
}

func allFaults() []simFault {
	return []simFault{
		{"node crashes", 4, func(w *simWorld) { w.crashNode(w.pick()) }},
		{"holder crashes", 3, func(w *simWorld) {
			if h, _ := w.present(); h != nil {
				w.crashNode(h.proc.node)
			}
		}},
		{"two nodes crash", 1, func(w *simWorld) {
			w.crashNode(w.pick())
			w.crashNode(w.pick())
		}},
		{"holder is deposed and does not know", 3, func(w *simWorld) {
			if h, _ := w.present(); h != nil {
				h.end()
			}
		}},
		{"writes half way", 3, func(w *simWorld) { w.halfWay() }},
		{"connection breaks", 4, func(w *simWorld) { w.breakOne() }},
		{"partition", 3, func(w *simWorld) { w.partition(true) }},
		{"partition one way", 3, func(w *simWorld) { w.partition(false) }},
		{"slow link", 2, func(w *simWorld) { w.slowLink() }},
		{"slow disk", 2, func(w *simWorld) { w.slowDisk(3 * time.Second) }},
		{"slow disk for long", 2, func(w *simWorld) { w.slowFor(w.pick(), w.between(12*time.Second, 25*time.Second)) }},
		{"raft stalls", 2, func(w *simWorld) { w.raft.stallFor(w.between(0, 8*time.Second)) }},
		{"raft loses answers", 2, func(w *simWorld) { w.raft.loseFor(w.between(0, 20*time.Second)) }},
		{"snapshot", 6, func(w *simWorld) { w.cutSnapshots(1) }},
		{"a member moves", 6, func(w *simWorld) { w.moveMember() }},
		{"a move is taken back", 1, func(w *simWorld) { w.takeBackMoves(0.5) }},
		{"two snapshots at once", 2, func(w *simWorld) { w.cutSnapshots(2) }},
		{"a snapshot is deleted", 6, func(w *simWorld) { w.deleteSnapshot() }},
	}
}

func (w *simWorld) pick() *simNode { return w.nodes[w.intn(len(w.nodes))] }

// crashNode stops a node's process with its disks and, if it runs there, the
// holder; it comes back by itself.
func (w *simWorld) crashNode(n *simNode) {
	w.crashFor(n, w.between(200*time.Millisecond, 12*time.Second))
}

func (w *simWorld) crashFor(n *simNode, pause time.Duration) {
	w.mu.Lock()
	was := n.up
	n.up = false
	n.life++
	var broken []*simConn
	for _, c := range w.conns {
		if c.disk.node == n {
			broken = append(broken, c)
		}
	}
	w.mu.Unlock()
	if !was {
		return
	}
	for _, d := range n.disks {
		d.store.crash()
	}
	for _, c := range broken {
		c.breakOff(errRefused)
	}
	if h, _ := w.present(); h != nil && h.proc.node == n {
		h.proc.kill()
		h.end()
	}
	w.zombies.Go(func() {
		time.Sleep(pause)
		w.startNode(n)
	})
}

func (w *simWorld) startNode(n *simNode) {
	for _, d := range n.disks {
		if err := d.store.restart(); err != nil {
			w.complain("restart of disk " + d.id.String() + ": " + err.Error())
		}
	}
	w.mu.Lock()
	n.up = true
	w.mu.Unlock()
	w.logf("node %d is back", n.id)
}

func (w *simWorld) breakOne() {
	w.mu.Lock()
	all := slices.Clone(w.conns)
	w.mu.Unlock()
	var open []*simConn
	for _, c := range all {
		if !c.isBroken() {
			open = append(open, c)
		}
	}
	if len(open) > 0 {
		open[w.intn(len(open))].breakOff(errLost)
	}
}

// partition cuts one node off from another or from all, and heals by itself.
func (w *simWorld) partition(bothWays bool) {
	a := w.pick()
	var links [][2]int
	all := w.chance(0.5)
	for _, b := range w.nodes {
		if b == a || !all && b != w.pick() {
			continue
		}
		links = append(links, [2]int{a.id, b.id})
		if bothWays {
			links = append(links, [2]int{b.id, a.id})
		}
	}
	w.mu.Lock()
	for _, l := range links {
		w.cut[l] = time.Now()
	}
	w.mu.Unlock()
	w.zombies.Go(func() {
		time.Sleep(w.between(100*time.Millisecond, 10*time.Second))
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, l := range links {
			delete(w.cut, l)
		}
	})
}

func (w *simWorld) slowLink() {
	a, b := w.pick(), w.pick()
	slow := w.between(time.Millisecond, 400*time.Millisecond)
	w.mu.Lock()
	w.delay[[2]int{a.id, b.id}] = slow
	w.mu.Unlock()
	w.zombies.Go(func() {
		time.Sleep(w.between(0, 10*time.Second))
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.delay, [2]int{a.id, b.id})
	})
}

// halfWay slows one node's disks until writes have reached the others only, then
// takes down the holder and, by chance, a node that has them.
func (w *simWorld) halfWay() {
	h, _ := w.present()
	if h == nil {
		return
	}
	slow := w.pick()
	w.mu.Lock()
	for _, d := range slow.disks {
		d.lag = 500 * time.Millisecond
	}
	w.mu.Unlock()
	time.Sleep(w.between(50*time.Millisecond, 400*time.Millisecond))
	w.crashNode(h.proc.node)
	if other := w.pick(); other != slow || w.chance(0.2) {
		w.crashNode(other)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range slow.disks {
		d.lag = 0
	}
}

func (w *simWorld) slowDisk(most time.Duration) {
	n := w.pick()
	d := n.disks[w.intn(len(n.disks))]
	lag := w.between(10*time.Millisecond, most)
	w.mu.Lock()
	d.lag = lag
	w.mu.Unlock()
	w.zombies.Go(func() {
		time.Sleep(w.between(0, 8*time.Second))
		w.mu.Lock()
		defer w.mu.Unlock()
		d.lag = 0
	})
}

// slowFor makes a node's disks so slow that they are left out, and well again later.
func (w *simWorld) slowFor(n *simNode, long time.Duration) {
	lag := w.between(200*time.Millisecond, time.Second) // a disk takes one after the other
	set := func(lag time.Duration) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, d := range n.disks {
			d.lag = lag
		}
	}
	set(lag)
	w.zombies.Go(func() {
		time.Sleep(long)
		set(0)
	})
}

func (r *simRaft) stallFor(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stall = time.Now().Add(d)
}

func (r *simRaft) loseFor(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lossy = 0.9
	r.w.zombies.Go(func() {
		time.Sleep(d)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.lossy = 0
	})
}

// heal ends every fault. Those that end by themselves are waited for.
func (w *simWorld) heal() {
	time.Sleep(13 * time.Second)
	w.raft.mu.Lock()
	w.raft.stall, w.raft.lossy = time.Time{}, 0
	w.raft.mu.Unlock()
	w.takeBackMoves(1) // some have nowhere to go
}
