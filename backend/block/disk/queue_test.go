package disk_test

import (
	"sync"
	"testing"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
)

// After done an op is the caller's again, to use for something else; the disk's
// queue is empty when all are answered, and its counters are right.
func TestOpIsTheCallersAfterDone(t *testing.T) {
	d := openFile(t, 1<<30)
	const ops, blocks = 300, 4
	var wait sync.WaitGroup
	for n := range uint64(ops) {
		op := writeOp(1, n+1, n, int(n)*blocks, blocks, n)
		wait.Add(1)
		d.Apply(op, func(err error) {
			if err != nil {
				t.Error(err)
			}
			op.Data.Release()
			*op = disk.Op{}
			wait.Done()
		})
	}
	wait.Wait()
	if err := d.Checkpoint(); err != nil { // the last batch has ended by then
		t.Fatal(err)
	}
	if n := d.QueuedBytes(); n != 0 {
		t.Errorf("%d bytes are in the queue of an idle disk", n)
	}
	if got, want := d.Stats().WriteBytes, uint64(ops*blocks*int(model.BlockSize)); got != want {
		t.Errorf("%d bytes written, want %d", got, want)
	}
}
