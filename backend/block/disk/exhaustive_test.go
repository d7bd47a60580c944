package disk_test

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"sync"
	"testing"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/disk/disktest"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/uring"
)

var (
	exhaustive = flag.Bool("disk.exhaustive", false, "every history of three, from both beginnings, with more cuts")
	oneHistory = flag.String("disk.history", "", "only this one, as a failure names it")
)

// alphabet is what a history consists of: most crash bugs of file systems need three
// operations or fewer on something fresh (Mohan et al., OSDI 2018).
var alphabet = []string{"part", "whole", "discard", "copy", "remove", "epoch", "checkpoint", "prepare"}

// A history is a sequence of them, with what is needed to make ops of them.
type history struct {
	gen   model.Generation
	last  uint64
	epoch model.Epoch
	seed  uint64
}

// next makes the step that a word of the alphabet stands for.
func (h *history) next(word string) step {
	h.seed++
	op := &disk.Op{Volume: 1, Generation: h.gen, Number: h.last + 1, Prev: h.last, Epoch: h.epoch}
	switch word {
	case "part": // the end of one page and the beginning of the next
		op.Kind, op.Block, op.Count = disk.Write, 13, 5
	case "whole": // two pages, and a part of a third
		op.Kind, op.Block, op.Count = disk.Write, 0, 34
	case "discard": // a part of a page and all of one
		op.Kind, op.Block, op.Count = disk.Discard, 12, 20
	case "copy":
		op = copyOp(h.gen, op.Number, op.Prev, 0, h.epoch, model.Stamp{Generation: 1, Number: 1}, 0x80f1, h.seed)
	case "remove":
		op.Kind, op.Page = disk.Remove, 1
	case "epoch": // what follows belongs to a new one; the row goes on
		h.epoch++
		op.Kind = disk.Mark
	case "checkpoint":
		return step{checkpoint: true}
	case "prepare":
		h.gen++
		h.last = 0
		return step{prepare: h.gen}
	}
	if op.Kind == disk.Write {
		op.Data, op.Sums = data(int(op.Count), h.seed)
	}
	if op.Kind == disk.Mark || h.seed%2 == 0 { // what was answered is acknowledged, now and then
		op.Watermark = model.Stamp{Generation: h.gen, Number: h.last}
	}
	h.last = op.Number
	return step{op: op}
}

// histories are all sequences of up to n words.
func histories(n int) (out [][]string) {
	last := [][]string{nil}
	for range n {
		var longer [][]string
		for _, h := range last {
			for _, w := range alphabet {
				longer = append(longer, append(h[:len(h):len(h)], w))
			}
		}
		out = append(out, longer...)
		last = longer
	}
	return out
}

// Every history of up to three operations on a fresh disk, and on one with a page that
// is whole and one that is not, with the power cut at every sync and with every write
// on its way, whatever part of it and of what was not synced survives: what was
// answered is there, what was not is there or not, block for block, no promise is
// forgotten, and what is uncertain is listed.
//
// The power is cut in the last operation only: the others are the last ones of shorter
// histories. Of those of three, a fifth is tried unless all are asked for.
func TestEveryShortHistory(t *testing.T) {
	begun, subsets := []string{""}, []int{0, 100, 50}
	if *exhaustive {
		begun = append(begun, "whole part checkpoint")
		subsets = append(subsets, 50, 20, 80)
	}
	cuts, n := 0, 0
	for _, before := range begun {
		for i, words := range histories(3) {
			if len(words) == 3 && i%5 != 0 && !*exhaustive && *oneHistory == "" {
				continue
			}
			words = append(strings.Fields(before), words...)
			if *oneHistory != "" && strings.Join(words, " ") != *oneHistory {
				continue
			}
			cuts += tryHistory(t, words, subsets)
			n++
		}
	}
	t.Logf("%d histories, %d power cuts", n, cuts)
}

// tryHistory does what the words say, cuts the power in the last one, and returns how
// often.
func tryHistory(t *testing.T, words []string, subsets []int) (cuts int) {
	t.Helper()
	ctx := context.Background()
	drive := disktest.New(1, 16<<20)
	if _, err := drive.Format(ctx, cluster); err != nil {
		t.Fatal(err)
	}
	d, err := drive.Open(ctx, disk.Options{Cluster: cluster})
	if err != nil {
		t.Fatal(err)
	}
	h, w := &history{gen: 1}, newWorld()
	steps := []step{{prepare: 1}}
	for _, word := range words {
		steps = append(steps, h.next(word))
	}
	final := len(steps) - 1
	if _, err := runScript(d, w, steps[:final]); err != nil {
		t.Fatalf("%v: %v", words, err)
	}
	var mu sync.Mutex // pebble asks from goroutines of its own
	var check []moment
	before := w.clone()
	cut := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		for i, percent := range subsets {
			n := len(check)
			check = append(check, moment{
				drive: drive.Clone(uint64(n), percent), before: before, underway: steps[final].op,
				at: fmt.Sprintf("-disk.history=%q: cut %d.%d, %s, %d %%", strings.Join(words, " "), n, i, what, percent),
			})
		}
	}
	drive.SetFlight(func(r *disktest.Request) { cut(fmt.Sprintf("write of %d bytes at %d on its way", r.Len, r.Off)) })
	drive.SetFault(func(r *disktest.Request) error {
		if r.Kind == uring.Sync {
			cut("before a sync")
		}
		return nil
	})
	if _, err := runScript(d, w, steps[final:]); err != nil {
		t.Fatalf("%v: %v", words, err)
	}
	drive.SetFlight(nil)
	drive.SetFault(nil)
	for i := range check {
		check[i].verify(t)
	}
	if n := len(check); n > 0 { // and now all of it was answered
		m := moment{drive: drive.Clone(uint64(n), 0), before: w, at: check[n-1].at + ", answered"}
		m.verify(t)
	}
	if err := d.Close(); err != nil {
		t.Fatalf("%v: close: %v", words, err)
	}
	return len(check) + 1
}
