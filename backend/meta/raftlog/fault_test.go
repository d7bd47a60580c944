package raftlog

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
)

// A fault makes syncs of pebble's own log fail, or hang until it is lifted.
type fault struct {
	mu   sync.Mutex
	err  error
	hang chan struct{}
}

// MaybeError implements errorfs.Injector.
func (f *fault) MaybeError(op errorfs.Op) error {
	switch op.Kind { //nolint:exhaustive // only what makes a write durable
	case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
	default:
		return nil
	}
	if !strings.HasSuffix(op.Path, ".log") {
		return nil
	}
	f.mu.Lock()
	err, hang := f.err, f.hang
	f.mu.Unlock()
	if hang != nil {
		<-hang
	}
	return err
}

// String implements errorfs.Injector.
func (f *fault) String() string { return "fault" }

func (f *fault) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *fault) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hang = make(chan struct{})
}

func (f *fault) lift() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.hang)
	f.hang = nil
}

// The first sync that fails latches the store: that append and every later write
// is refused though the disk is well again, reading goes on, and raft is neither
// told that a term is kept nor made to crash.
func TestFailedSyncLatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fault{}
		mem := vfs.NewMem()
		s := openOn(t, errorfs.Wrap(mem, f))
		if err := s.StoreLogs(entries(1, 1, 3)); err != nil {
			t.Fatal(err)
		}
		broken := errors.New("input/output error")
		f.fail(broken)
		if err := s.StoreLog(entry(4, 1)); err == nil {
			t.Fatal("an append whose sync failed was acknowledged")
		}
		f.fail(nil)
		select {
		case <-s.Failed():
		default:
			t.Fatal("the store has not latched")
		}
		if err := s.Err(); err == nil || !strings.Contains(err.Error(), broken.Error()) {
			t.Errorf("Err: %v", err)
		}
		if err := s.StoreLog(entry(4, 1)); err == nil {
			t.Error("an append after the failure was acknowledged")
		}
		if err := s.DeleteRange(1, 2); err == nil {
			t.Error("a deletion after the failure was acknowledged")
		}
		if diff := cmp.Diff(map[uint64]uint64{1: 1, 2: 1, 3: 1}, contents(t, s, 9)); diff != "" {
			t.Errorf("the log differs:\n%s", diff)
		}
		var raftWaits sync.WaitGroup
		var term, vote error
		raftWaits.Go(func() { term = s.SetUint64([]byte("term"), 2) })
		raftWaits.Go(func() { vote = s.Set([]byte("vote"), []byte("me")) })
		synctest.Wait()
		s.Release()
		raftWaits.Wait()
		if term != nil || vote == nil {
			t.Errorf("after Release the term said %v (raft would crash), the vote %v", term, vote)
		}
		// Pebble may not close cleanly after that; what was durable is there.
		_ = s.Close()
		s = openOn(t, mem)
		defer closed(t, s)
		for i := uint64(1); i <= 3; i++ {
			var l raft.Log
			if err := s.GetLog(i, &l); err != nil {
				t.Errorf("entry %d after reopening: %v", i, err)
			}
		}
		if got, err := s.Get([]byte("vote")); len(got) != 0 || err != nil {
			t.Errorf("a vote that was refused is there: %q, %v", got, err)
		}
	})
}

// A disk that hangs: the append fails after the deadline, later ones at once; a
// stable value is waited for; when the disk answers, the append that was reported
// as failed is taken back, and the log goes on.
func TestHungDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fault{}
		mem := vfs.NewMem()
		s := openOn(t, errorfs.Wrap(mem, f))
		if err := s.StoreLogs(entries(1, 1, 3)); err != nil {
			t.Fatal(err)
		}
		f.stop()
		began := time.Now()
		if err := s.StoreLogs(entries(1, 4, 6)); !errors.Is(err, ErrHung) {
			t.Errorf("StoreLogs: %v", err)
		}
		if took := time.Since(began); took != Deadline {
			t.Errorf("it took %v, want %v", took, Deadline)
		}
		if s.LastHung() != time.Now() {
			t.Errorf("LastHung is %v", s.LastHung())
		}
		if err := s.StoreLog(entry(4, 1)); !errors.Is(err, ErrHung) || time.Since(began) != Deadline {
			t.Errorf("a second StoreLogs: %v after %v", err, time.Since(began))
		}
		var wg sync.WaitGroup
		var stable error
		wg.Go(func() { stable = s.SetUint64([]byte("term"), 5) })
		time.Sleep(time.Minute)
		f.lift()
		wg.Wait()
		if stable != nil {
			t.Errorf("SetUint64 over the hang: %v", stable)
		}
		check(t, s, map[uint64]uint64{1: 1, 2: 1, 3: 1})
		if err := s.StoreLogs(entries(2, 4, 4)); err != nil {
			t.Errorf("StoreLogs when the disk is back: %v", err)
		}
		closed(t, s)
		s = openOn(t, mem)
		defer closed(t, s)
		check(t, s, map[uint64]uint64{1: 1, 2: 1, 3: 1, 4: 2})
		if got, err := s.GetUint64([]byte("term")); got != 5 || err != nil {
			t.Errorf("the term is %d, %v", got, err)
		}
	})
}

// A truncation whose append fails has not happened: raft believes in the old
// entries then, and must find them.
func TestFailedTruncation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fault{}
		s := openOn(t, errorfs.Wrap(vfs.NewMem(), f))
		if err := s.StoreLogs(entries(1, 1, 5)); err != nil {
			t.Fatal(err)
		}
		f.stop()
		// Another write hangs first, so that the truncating append never begins.
		var first sync.WaitGroup
		first.Go(func() {
			if err := s.Set([]byte("x"), nil); err != nil {
				t.Errorf("Set: %v", err)
			}
		})
		synctest.Wait()
		if err := s.DeleteRange(3, 5); err != nil {
			t.Fatal(err)
		}
		check(t, s, map[uint64]uint64{1: 1, 2: 1})
		if err := s.StoreLogs(entries(2, 3, 3)); !errors.Is(err, ErrHung) {
			t.Errorf("StoreLogs: %v", err)
		}
		check(t, s, map[uint64]uint64{1: 1, 2: 1, 3: 1, 4: 1, 5: 1})
		f.lift()
		first.Wait()
		if err := s.DeleteRange(3, 5); err != nil {
			t.Fatal(err)
		}
		if err := s.StoreLogs(entries(2, 3, 3)); err != nil {
			t.Errorf("StoreLogs when the disk is back: %v", err)
		}
		check(t, s, map[uint64]uint64{1: 1, 2: 1, 3: 2})
		closed(t, s)
	})
}

// A truncation that was reported as failed and happens later cannot be taken
// back: the store latches rather than let raft believe in what is gone.
func TestLateTruncationLatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fault{}
		s := openOn(t, errorfs.Wrap(vfs.NewMem(), f))
		if err := s.StoreLogs(entries(1, 1, 5)); err != nil {
			t.Fatal(err)
		}
		f.stop()
		if err := s.DeleteRange(3, 5); err != nil {
			t.Fatal(err)
		}
		if err := s.StoreLogs(entries(2, 3, 3)); !errors.Is(err, ErrHung) {
			t.Errorf("StoreLogs: %v", err)
		}
		f.lift()
		<-s.Failed()
		if err := s.StoreLogs(entries(2, 6, 6)); err == nil {
			t.Error("an append was acknowledged after that")
		}
		closed(t, s)
	})
}

// Close of a store whose disk never answers ends, and says so.
func TestCloseHung(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fault{}
		s := openOn(t, errorfs.Wrap(vfs.NewMem(), f))
		f.stop()
		if err := s.StoreLogs(entries(1, 1, 1)); !errors.Is(err, ErrHung) {
			t.Errorf("StoreLogs: %v", err)
		}
		began := time.Now()
		if err := s.Close(); !errors.Is(err, ErrHung) || time.Since(began) != closeWait {
			t.Errorf("Close: %v after %v", err, time.Since(began))
		}
		f.lift() // else the bubble does not end
		synctest.Wait()
	})
}
