package volume

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"drystone.example/drystone/backend/iobuf"
)

// content reads a whole device.
func (w *simWorld) content(read func(ctx context.Context, p []byte, off int64) error) ([]byte, error) {
	p := iobuf.Aligned(w.profile.columns * 4 << 20)
	for at := 0; at < len(p); at += 1 << 20 {
		ctx, cancel := context.WithTimeout(w.t.Context(), 15*time.Second)
		err := read(ctx, p[at:at+1<<20], int64(at))
		cancel()
		if err != nil {
			return nil, err
		}
	}
	return p, nil
}

// revertAmidFaults stops the clients, reverts the volume to one of its snapshots
// while nodes crash, and says what is wrong with what it is then.
func (w *simWorld) revertAmidFaults() string {
	w.quiet.Store(true)
	time.Sleep(20 * time.Second) // what clients have begun has ended
	all := w.raft.snapshots()
	_, v := w.present()
	if len(all) == 0 || v == nil || !w.converge() {
		return ""
	}
	to := all[w.intn(len(all))]
	_, v = w.present()
	at, err := v.At(to.Snapshot)
	if err != nil {
		return "the snapshot to revert to: " + err.Error()
	}
	want, err := w.content(at.ReadAt)
	if err != nil {
		return "the snapshot to revert to: " + err.Error()
	}
	w.raft.mu.Lock()
	w.raft.rec = beginRevert(w.raft.rec, to.Snapshot)
	w.logf("raft: revert to snapshot %d of epoch %d", to.ID, to.Epoch)
	w.raft.mu.Unlock()
	w.tellLater()
	for range 3 + w.intn(4) {
		time.Sleep(w.between(0, 300*time.Millisecond))
		w.crashNode(w.pick())
		if w.chance(0.3) {
			w.deleteSnapshot()
		}
	}
	w.heal()
	if !w.converge() {
		return fmt.Sprintf("the revert did not end: %+v", w.raft.get())
	}
	_, v = w.present()
	got, err := w.content(v.ReadAt)
	if err != nil {
		return "the reverted volume: " + err.Error()
	}
	for b := 0; b < len(want); b += blockSize {
		if !slices.Equal(got[b:b+blockSize], want[b:b+blockSize]) {
			is, _ := blockValue(got[b : b+blockSize])
			was, _ := blockValue(want[b : b+blockSize])
			return fmt.Sprintf("block %d of the reverted volume is %d, of snapshot %d it was %d", b/blockSize, is, to.ID, was)
		}
	}
	return ""
}

// Through crashes and takeovers in the middle a reverted volume is what the snapshot
// was, and the other snapshots stay what they were.
func TestRevertAmidFaults(t *testing.T) {
	for seed := *simFirst; seed < *simFirst+uint64(*simReverts); seed++ {
		p := defaultProfile(seed)
		p.length = 10 * time.Second
		p.faults = []simFault{
			{"snapshot", 3, func(w *simWorld) { w.cutSnapshots(1) }},
			{"node crashes", 1, func(w *simWorld) { w.crashNode(w.pick()) }},
		}
		p.reverts = true
		what, log := simulate(t, seed, p, mistakes{})
		if *simLog {
			t.Log(log)
		}
		if what != "" {
			t.Fatalf("seed %d: %s", seed, what)
		}
	}
}
