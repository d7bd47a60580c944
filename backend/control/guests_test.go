package control

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/placement"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// Something is moved for balance only when there has been something to move for ten
// minutes without a break, and the next only after as long again.
func TestBalanceIsPatient(t *testing.T) {
	var h herder
	even := &placement.GuestMove{VM: 1, To: 2, For: model.MoveBalance}
	var moved []int
	for minute := range 60 {
		next := even
		if minute == 9 {
			next = nil
		}
		if len(h.patient(next, noon.Add(time.Duration(minute)*time.Minute))) > 0 {
			moved = append(moved, minute)
		}
	}
	if want := []int{20, 31, 42, 53}; !slices.Equal(moved, want) {
		t.Errorf("machines were moved at minutes %v, want %v", moved, want)
	}
}

// The load of a node is the mean of ten minutes; before that, and of one that has started
// anew, nothing is known.
func TestMeanLoad(t *testing.T) {
	var h herder
	known := func() (float64, bool, float64) {
		hosts := []placement.Host{{Node: 1, CPUs: 4}}
		load := h.mean(hosts)
		return hosts[0].Busy, hosts[0].Known, load[7]
	}
	for minute := range 31 {
		busy := 60 * float64(minute) // of four processors, one
		if minute > 20 {
			busy = 60*20 + 180*float64(minute-20) // and now three
		}
		h.sample(noon.Add(time.Duration(minute)*time.Minute), map[model.NodeID]Load{1: {
			Busy: busy, Clock: 240 * float64(minute), Guests: map[model.VMID]float64{7: busy / 2},
		}})
		got, ok, guest := known()
		switch {
		case minute < 10 && (ok || guest != 0):
			t.Fatalf("after %d minutes the load is known as %v", minute, got)
		case minute == 10 && (!ok || got != 1 || guest != 0.5), minute == 30 && (!ok || got != 3 || guest != 1.5):
			t.Fatalf("after %d minutes the load is %v, %v, of a guest %v", minute, got, ok, guest)
		}
	}
	h.sample(noon.Add(31*time.Minute), map[model.NodeID]Load{1: {Busy: 1, Clock: 2}})
	if got, ok, _ := known(); ok {
		t.Errorf("of a node that has started anew the load is %v", got)
	}
}

// A move that fails is tried again later each time, and it is said why; one that is done
// is forgotten.
func TestMovesAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := herder{tries: map[model.VMID]try{}}
		said := "the guest is too busy"
		vm := model.VM{ID: 1, Name: "web", Node: 1, Power: model.PowerOn, Status: model.VMStatus{State: model.VMRunning}}
		outcome := func(context.Context, model.NodeID, model.TaskID) string { return said }
		find := func(model.VMID) (model.VM, error) { return vm, nil }
		var waited []time.Duration
		for range 8 {
			h.tries[1] = try{from: 1, task: 5, began: time.Now(), failed: h.tries[1].failed}
			h.judge(t.Context(), find, time.Now(), outcome)
			if why, rests := h.resting(time.Now())[1]; !rests || why != "" {
				t.Fatalf("while it is under way: %q, %v", why, rests)
			}
			time.Sleep(tryGrace)
			h.judge(t.Context(), find, time.Now(), outcome)
			began := time.Now()
			for {
				why, rests := h.resting(time.Now())[1]
				if !rests {
					break
				}
				if !strings.Contains(why, said) {
					t.Fatalf("it rests because %q", why)
				}
				time.Sleep(time.Second)
			}
			waited = append(waited, time.Since(began))
		}
		if waited[0] != tryAgain || waited[1] != 2*tryAgain || waited[7] != tryAgainIn {
			t.Errorf("it was tried again after %v", waited)
		}
		vm.Node = 2
		h.judge(t.Context(), find, time.Now(), outcome)
		if len(h.tries) != 0 {
			t.Errorf("of one that has moved there is still %+v", h.tries)
		}
	})
}
