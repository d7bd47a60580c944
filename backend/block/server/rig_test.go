package server_test

import (
	"context"
	"errors"
	"hash/crc32"
	"net"
	"sync"
	"testing"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/server"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/wire"
	"drystone.example/drystone/backend/wire/wiretest"
)

const (
	holder = model.NodeID(1) // has the client
	store  = model.NodeID(2) // has the disks
)

// A rig is a store node with a server and a holder node with a client.
type rig struct {
	tb      testing.TB
	cluster *wiretest.Cluster
	net     *wiretest.Net // nil: loopback TCP
	addr    string
	server  *server.Server
	wire    *wire.Transport // the holder's
	client  *server.Client
	halt    func() // stops the store's wire and waits

	mu      sync.Mutex
	removed map[model.NodeID]bool
}

func newRig(tb testing.TB, n *wiretest.Net, cfg server.Config) *rig {
	tb.Helper()
	r := &rig{tb: tb, cluster: wiretest.NewCluster(tb), net: n, removed: map[model.NodeID]bool{}}
	r.server = server.New(cfg)
	r.start()
	r.wire = r.transport(holder, "127.0.0.1:0", "holder:7420", "holder")
	r.client = server.NewClient(r.wire)
	tb.Cleanup(func() {
		r.client.Close()
		r.halt()
	})
	return r
}

func (r *rig) transport(id model.NodeID, tcp, mem, host string) *wire.Transport {
	c := wire.Config{
		Self: id, Cluster: r.cluster.ID, Listen: tcp, TLS: r.cluster.Keeper(r.tb, id),
		Allowed: func(id model.NodeID) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.removed[id] {
				return model.Errorf(model.Denied, "node %s was removed", id)
			}
			return nil
		},
		Resolve: func(model.NodeID) (string, error) { return r.addr, nil },
	}
	if r.net != nil {
		c.Listen, c.Network = mem, r.net.Host(host)
	}
	return wire.New(c)
}

// start begins to listen on the store, again after halt.
func (r *rig) start() {
	r.tb.Helper()
	listen := r.addr
	if listen == "" {
		listen = "127.0.0.1:0"
	}
	tr := r.transport(store, listen, "store:7420", "store")
	tr.Serve(server.Proto, r.server.Serve)
	ctx, cancel := context.WithCancel(context.Background())
	addr, err := tr.Listen(ctx)
	if err != nil {
		r.tb.Fatal(err)
	}
	r.addr = addr.String()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tr.Run(ctx)
	}()
	r.halt = func() { cancel(); <-done }
}

// raw connects as the holder and gives the bare stream.
func (r *rig) raw() net.Conn {
	r.tb.Helper()
	conn, err := r.wire.Dial(r.tb.Context(), store, server.Proto)
	if err != nil {
		r.tb.Fatal(err)
	}
	return conn
}

// A memDisk keeps what is applied in memory, by the rules of a row, and answers
// in batches as a journal does. It can be made to hang.
type memDisk struct {
	mu      sync.Mutex
	queue   []task
	asleep  bool
	stopped bool
	held    bool          // hangs
	apply   chan struct{} // closed while Apply does not block
	last    map[model.VolumeID]uint64
	applied []uint64 // numbers in order of Apply
	blocks  map[uint64][]byte
	sizes   []int // of batches

	wake chan struct{}
	done chan struct{}
}

type task struct {
	op   *disk.Op
	done func(error)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newMemDisk(tb testing.TB) *memDisk {
	tb.Helper()
	d := &memDisk{
		last: map[model.VolumeID]uint64{}, blocks: map[uint64][]byte{},
		wake: make(chan struct{}, 1), done: make(chan struct{}), apply: make(chan struct{}),
	}
	close(d.apply)
	go d.run()
	tb.Cleanup(func() {
		d.hold(false)
		d.mu.Lock()
		d.stopped = true
		d.kick()
		d.mu.Unlock()
		<-d.done
	})
	return d
}

// kick wakes the disk; d.mu is held.
func (d *memDisk) kick() {
	if d.asleep {
		d.asleep = false
		d.wake <- struct{}{}
	}
}

// hold makes the disk stop answering, or go on.
func (d *memDisk) hold(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = on
	d.kick()
}

// block makes Apply itself hang until the returned function is called.
func (d *memDisk) block() (release func()) {
	c := make(chan struct{})
	d.mu.Lock()
	d.apply = c
	d.mu.Unlock()
	return sync.OnceFunc(func() { close(c) })
}

func (d *memDisk) run() {
	defer close(d.done)
	var batch []task
	for {
		d.mu.Lock()
		for !d.stopped && (len(d.queue) == 0 || d.held) {
			d.asleep = true
			d.mu.Unlock()
			<-d.wake
			d.mu.Lock()
		}
		if d.stopped {
			d.mu.Unlock()
			return
		}
		batch, d.queue = d.queue, batch[:0]
		d.sizes = append(d.sizes, len(batch))
		errs := make([]error, len(batch))
		for i, t := range batch {
			errs[i] = d.one(t.op)
		}
		d.mu.Unlock()
		for i, t := range batch {
			t.done(errs[i])
		}
	}
}

// one applies an op; d.mu is held.
func (d *memDisk) one(op *disk.Op) error {
	last := d.last[op.Volume]
	switch {
	case op.Number <= last:
		return nil
	case op.Prev != last:
		return disk.ErrGap
	}
	if op.Data != nil {
		const size = int(model.BlockSize)
		for i, sum := range op.Sums {
			b := op.Data.Bytes[op.DataOff+i*size:][:size]
			if crc32.Checksum(b, castagnoli) != sum {
				return model.Errorf(model.Corrupt, "the block does not match its sum")
			}
			if op.Kind == disk.Write {
				d.blocks[uint64(op.Block)+uint64(i)] = append(d.blocks[uint64(op.Block)+uint64(i)][:0], b...)
			}
		}
	}
	d.last[op.Volume] = op.Number
	d.applied = append(d.applied, op.Number)
	return nil
}

func (d *memDisk) Apply(op *disk.Op, done func(error)) {
	d.mu.Lock()
	open := d.apply
	d.mu.Unlock()
	<-open
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queue = append(d.queue, task{op, done})
	if !d.held {
		d.kick()
	}
}

func (d *memDisk) Prepare(_ context.Context, p disk.Prepare) (disk.Promise, error) {
	out := disk.Promise{Watermark: model.Stamp{Generation: p.Generation, Number: p.Last}}
	if o := p.Origin; o != nil {
		out.Watermark.Number += 1000*uint64(o.Volume) + uint64(o.Epoch)
		for _, c := range o.Columns {
			out.Watermark.Number = 10*out.Watermark.Number + uint64(c)
		}
	}
	for i := range uint32(5) {
		v := disk.Version{Page: i, Epoch: model.Epoch(i), Mask: uint16(1<<i - 1), Stamp: model.Stamp{Generation: 1, Number: uint64(i)}}
		for j := range i {
			v.Sums[j] = 100*i + j
		}
		out.Uncertain = append(out.Uncertain, disk.ColumnVersion{Column: 7 * i, Version: v})
	}
	return out, nil
}

// The test disk's answers to reads are made from the question.
func (d *memDisk) Read(ctx context.Context, r disk.Read, dst []byte, sums []uint32) error {
	d.mu.Lock()
	held := d.held
	for i := range r.Count {
		b := dst[i*int(model.BlockSize):][:model.BlockSize]
		if n := copy(b, d.blocks[uint64(r.Block)+uint64(i)]); n == 0 {
			clear(b)
		}
		sums[i] = crc32.Checksum(b, castagnoli)
	}
	d.mu.Unlock()
	if held {
		<-ctx.Done()
		return ctx.Err()
	}
	switch r.Column {
	case 100:
		return errors.New("a read that fails in no known way")
	case 101:
		return &disk.CorruptError{Volume: r.Volume, Column: r.Column, Blocks: []blockNo{r.Block, r.Block + 1}}
	}
	return nil
}

func (d *memDisk) List(_ context.Context, l disk.List) (disk.Listing, error) {
	out := disk.Listing{Next: l.From + uint32(l.Max), Done: l.From > 10}
	for i := range l.Max {
		out.Versions = append(out.Versions, disk.Version{Page: l.From + uint32(i), Mask: 1, Sums: [16]uint32{42}})
	}
	return out, nil
}

func (d *memDisk) Digest(_ context.Context, l disk.List) (disk.Digest, error) {
	return disk.Digest{Sum: [32]byte{byte(l.Column), 31: byte(l.From)}, Versions: int(l.To)}, nil
}

func (d *memDisk) ReadVersion(_ context.Context, vol model.VolumeID, _ model.Generation, column, page uint32,
	epoch model.Epoch, dst []byte,
) (disk.Version, error) {
	if column == 404 {
		return disk.Version{}, model.Errorf(model.NotFound, "no such version")
	}
	v := disk.Version{Page: page, Epoch: epoch, Mask: uint16(column), Stamp: model.Stamp{Generation: 3, Number: uint64(vol)}}
	for i := range 16 {
		b := dst[i*int(model.BlockSize):][:model.BlockSize]
		clear(b)
		if v.Mask&(1<<i) != 0 {
			b[0], b[len(b)-1] = byte(i+1), byte(i+1)
			v.Sums[i] = crc32.Checksum(b, castagnoli)
		}
	}
	if epoch == 666 {
		return v, &disk.CorruptError{Volume: vol, Column: column, Blocks: []blockNo{1}}
	}
	return v, nil
}

// writes makes numbered writes of one volume, one after the other.
type writes struct {
	volume model.VolumeID
	number uint64
}

func (w *writes) next(block uint64, data *iobuf.Buffer, sums []uint32) *disk.Op {
	w.number++
	return &disk.Op{
		Kind: disk.Write, Volume: w.volume, Generation: 1, Number: w.number, Prev: w.number - 1,
		Block: blockNo(block), Count: uint64(len(sums)), Sums: sums, Data: data,
	}
}

// payload makes n blocks that tell themselves apart, with their sums.
func payload(n int, seed byte) (*iobuf.Buffer, []uint32) {
	b := iobuf.Get(n * int(model.BlockSize))
	sums := make([]uint32, n)
	for i := range n {
		block := b.Bytes[i*int(model.BlockSize):][:model.BlockSize]
		for j := range block {
			block[j] = seed + byte(i*31) + byte(j)
		}
		sums[i] = crc32.Checksum(block, castagnoli)
	}
	return b, sums
}
