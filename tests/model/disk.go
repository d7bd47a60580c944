package model

// An Image is what a disk knows: the row's state and the map.
type Image struct {
	Promise Gen   // other generations are refused
	Last    Stamp // of the last message applied
	Mark    Stamp // the highest watermark heard
	Page    [maxPages][maxEpochs]Version
}

// An Entry is what a batch of the journal says of one message or promise. It is
// absolute: the row as it is after it, and one version as it is after it.
type Entry struct {
	Promise     Gen
	Last, Mark  Stamp
	Page, Epoch uint8
	Data        uint8 // blocks whose content it carries, by bit
	Has         bool  // it carries a version
	V           Version
}

// The stages of a checkpoint.
const (
	noCheckpoint uint8 = iota
	applying           // blocks are being written in place
	flushing           // they are durable there; the map is being flushed
	flushed            // and is durable; the tail has not moved
)

// A Disk is one disk. Only Now is ever answered from or read. In bounds without a
// journal each message is durable at once, and Now is all there is.
type Disk struct {
	Now Image // durable and installed

	Next    Image // Now with the batch that is being written
	Batch   [maxBatch]Entry
	Batched uint8

	Log  [maxLog]Entry // the live journal, from its tail on
	Logs uint8
	Kept Image                                 // the map as a replay finds it
	Area [maxPages][maxEpochs][maxBlocks]uint8 // what is durable in place

	Stage uint8
	Head  uint8 // where the journal was when the checkpoint began
}

// latest is what the next message is judged against: all before it in the batch.
func (d *Disk) latest() *Image {
	if d.Batched > 0 {
		return &d.Next
	}
	return &d.Now
}

// newest is the version of a page visible in an epoch.
func (i *Image) newest(page uint8, epoch uint16) Version {
	for e := int(epoch); e >= 0; e-- {
		if v := i.Page[page][e]; v.Stamp != 0 {
			return v
		}
	}
	return Version{}
}

// read returns which write a block reads as in an epoch.
func (i *Image) read(page, block uint8, epoch uint16) uint8 {
	return i.newest(page, epoch).Val[block]
}

// compose says what a message changes.
func (i *Image) compose(x *Msg) Entry {
	e := Entry{
		Promise: i.Promise, Last: max(i.Last, x.Order), Mark: max(i.Mark, x.Mark),
		Page: x.Page, Epoch: x.Epoch,
	}
	switch x.Kind {
	case MarkMsg:
	case CopyMsg:
		e.Has, e.V = true, x.V
		e.V.Made = x.Order
		e.Data = 1<<maxBlocks - 1
	case WriteMsg:
		v := i.newest(x.Page, uint16(x.Epoch)) // copy-on-write across epochs
		if x.Tomb && v.empty() {
			break // there is nothing to discard
		}
		if v.Tomb && !x.Tomb {
			v.Tomb = false
		}
		for b := range v.Val {
			if x.Block == wholePage || int(x.Block) == b {
				v.Val[b] = x.Val
				e.Data |= 1 << b
			}
		}
		if i.Page[x.Page][x.Epoch].Stamp == 0 { // a fresh place: all of it is written
			e.Data = 1<<maxBlocks - 1
		}
		v.Stamp, v.Made, v.Tomb = x.Order, x.Order, x.Tomb
		e.Has, e.V = true, v
	}
	return e
}

// install makes an entry count.
func (i *Image) install(e *Entry) {
	i.Promise, i.Last, i.Mark = e.Promise, e.Last, e.Mark
	if e.Has {
		i.Page[e.Page][e.Epoch] = e.V
	}
	i.settle()
}

// settle forgets of versions at or below the watermark what made them.
func (i *Image) settle() {
	for p := range i.Page {
		for e := range i.Page[p] {
			if v := &i.Page[p][e]; v.Made <= i.Mark {
				v.Made = 0
			}
		}
	}
}

// put takes an entry into the batch, or makes it durable where there is no journal.
func (m *Model) put(d *Disk, e Entry) {
	if !m.Journal {
		d.Now.install(&e)
		return
	}
	if d.Batched == 0 {
		d.Next = d.Now
	}
	d.Next.install(&e)
	d.Batch[d.Batched] = e
	d.Batched++
}

// room reports whether the journal takes another entry before a checkpoint.
func (m *Model) room(d *Disk) bool {
	return !m.Journal || d.Batched < maxBatch && d.Logs+d.Batched < maxLog
}

// promise has a disk refuse all other generations and begin a row after last.
func (m *Model) promise(d *Disk, g Gen, last uint8) {
	i := d.latest()
	m.put(d, Entry{Promise: g, Last: max(i.Last, at(g, last)), Mark: i.Mark})
}

// arrivals lets messages reach disks. A disk takes only from the generation it
// promised, and only the next number of the row.
func (m *Model) arrivals(s *State, out emit) {
	for d := range m.Disks {
		disk, found := &s.Disk[d], false
		if !m.room(disk) {
			continue
		}
		have := disk.latest()
		for i := range s.Msg[:s.Msgs] {
			x := &s.Msg[i]
			if int(x.To) != d {
				continue
			}
			g := x.Order.gen()
			switch {
			case g < have.Promise && m.Mistake == NoFence, m.Mistake == Unordered && g == have.Promise:
				if !x.Done {
					m.arrive(s, i, out)
				}
			case found || x.Order <= have.Last: // the next in the row is the first after Last
			case g == have.Promise, m.Mistake == JoinWithoutPrepare && g > have.Promise:
				found = true
				m.arrive(s, i, out)
			}
		}
	}
}

func (m *Model) arrive(s *State, i int, out emit) {
	t := *s
	x := &t.Msg[i]
	disk := &t.Disk[x.To]
	e := disk.latest().compose(x)
	if m.Mistake == CopiesUnlisted && x.Kind == CopyMsg {
		e.V.Made = 0
	}
	x.Done = m.Mistake == Unordered || m.Mistake == NoFence
	m.put(disk, e)
	out(Step{Name: "arrive (disk, generation, number)", A: x.To, B: uint8(x.Order.gen()), C: x.Order.number()}, &t)
}

// journals lets the disks' journals go on, and disks crash.
func (m *Model) journals(s *State, out emit) {
	if !m.Journal {
		return
	}
	for d := range m.Disks {
		if s.Disk[d].Batched > 0 {
			t := *s
			t.Disk[d].sync()
			out(Step{Name: "sync batch (disk)", A: uint8(d)}, &t)
		}
		m.checkpoint(s, d, out)
		m.crash(s, d, out)
	}
}

// sync makes the batch durable and installs it.
func (d *Disk) sync() {
	d.Now, d.Next = d.Next, Image{}
	d.Logs += uint8(copy(d.Log[d.Logs:], d.Batch[:d.Batched]))
	d.Batch, d.Batched = [maxBatch]Entry{}, 0
}

// checkpoint brings a disk's checkpoint on by a stage: first what is pending goes
// to its place, then the map is flushed, then the journal's tail moves to where
// the journal was at first.
func (m *Model) checkpoint(s *State, d int, out emit) {
	t := *s
	disk := &t.Disk[d]
	step := Step{A: uint8(d), Optional: true}
	switch disk.Stage {
	case noCheckpoint:
		if disk.Logs == 0 || s.Checkpoints == m.Checkpoints {
			return
		}
		step.Name = "checkpoint begins (disk)"
		t.Checkpoints++
		disk.Stage, disk.Head = applying, disk.Logs
	case applying:
		step.Name = "checkpoint has synced the blocks in place (disk)"
		if m.Mistake != PlaceUnsynced {
			disk.place(1<<(maxPages*maxEpochs*maxBlocks) - 1)
		}
		disk.Stage = flushing
		if m.Mistake == TailEarly {
			disk.cutLog()
		}
	case flushing:
		step.Name = "checkpoint has flushed the map (disk)"
		disk.keep(1<<(1+maxPages*maxEpochs) - 1)
		if m.Mistake == UncertainDropped {
			disk.Kept.forgetMade()
		}
		disk.Stage = flushed
	case flushed:
		step.Name = "checkpoint moves the tail (disk)"
		disk.cutLog()
		disk.Stage = noCheckpoint
	}
	out(step, &t)
}

// cutLog moves the tail to where the checkpoint began.
func (d *Disk) cutLog() {
	n := copy(d.Log[:], d.Log[d.Head:d.Logs])
	clear(d.Log[n:])
	d.Logs, d.Head = uint8(n), 0
}

// place makes some of the blocks durable in place, by bit.
func (d *Disk) place(some int) {
	bit := 0
	for p := range d.Area {
		for e := range d.Area[p] {
			for b := range d.Area[p][e] {
				if v := &d.Now.Page[p][e]; some>>bit&1 != 0 && !v.empty() {
					d.Area[p][e][b] = v.Val[b]
				}
				bit++
			}
		}
	}
}

// keep makes some of the map durable: bit 0 is the row, the others are versions.
func (d *Disk) keep(some int) {
	if some&1 != 0 {
		d.Kept.Promise, d.Kept.Last, d.Kept.Mark = d.Now.Promise, d.Now.Last, d.Now.Mark
	}
	bit := 1
	for p := range d.Kept.Page {
		for e := range d.Kept.Page[p] {
			if some>>bit&1 != 0 {
				d.Kept.Page[p][e] = d.Now.Page[p][e]
			}
			bit++
		}
	}
	d.Kept.settle()
}

func (i *Image) forgetMade() {
	for p := range i.Page {
		for e := range i.Page[p] {
			i.Page[p][e].Made = 0
		}
	}
}

// crash loses what a disk had not made durable, and replays its journal. Of the
// batch being written all or nothing is left, for it has one checksum; of the
// blocks being written in place, and of the map being flushed, any part.
func (m *Model) crash(s *State, d int, out emit) {
	if s.Crashes == m.Crashes {
		return
	}
	parts := 1
	switch s.Disk[d].Stage {
	case applying:
		parts = 1 << m.Blocks // of the first page; the others are as good
	case flushing:
		parts = 1 << (1 + m.Epochs)
	}
	batches := uint8(0)
	if s.Disk[d].Batched > 0 {
		batches = 1
	}
	for whole := range batches + 1 {
		for some := range parts {
			t := *s
			t.Crashes++
			disk := &t.Disk[d]
			switch disk.Stage {
			case applying:
				disk.place(some)
			case flushing:
				disk.keep(some)
			}
			if whole != 0 {
				disk.sync()
			} else if m.Mistake == TornBatch && disk.Batched > 0 {
				disk.tear()
			}
			m.replay(disk)
			out(Step{
				Name: "crash and replay (disk, batch survives, part)",
				A:    uint8(d), B: whole, C: uint8(some), Optional: true,
			}, &t)
		}
	}
}

// tear is the mistake of taking what can be read of a batch: the row's record
// survived, and the version did not.
func (d *Disk) tear() {
	e := d.Batch[d.Batched-1]
	e.Has, e.V, e.Data = false, Version{}, 0
	d.Log[d.Logs] = e
	d.Logs++
}

// replay rebuilds what a disk knows from the map that was kept and the journal. A
// block that is not in the journal must be in place.
func (m *Model) replay(d *Disk) {
	i := d.Kept
	area := d.Area
	for n := range d.Log[:d.Logs] {
		e := &d.Log[n]
		promise, last := i.Promise, i.Last
		i.install(e)
		if m.Mistake == ReplayNoPromise {
			i.Promise, i.Last = promise, last // they are one record
		}
		for b := range maxBlocks {
			if e.Data>>b&1 != 0 {
				area[e.Page][e.Epoch][b] = e.V.Val[b]
			}
		}
	}
	for p := range i.Page {
		for e := range i.Page[p] {
			v := &i.Page[p][e]
			v.Bad = !v.empty() && v.Val != area[p][e]
		}
	}
	d.Now, d.Next, d.Batch, d.Batched = i, Image{}, [maxBatch]Entry{}, 0
	d.Stage, d.Head = noCheckpoint, 0
}
