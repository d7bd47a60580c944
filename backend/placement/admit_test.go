package placement

import (
	"slices"
	"strings"
	"testing"
	"time"

	"drystone.example/drystone/backend/model"
)

// Whoever starts a machine is told what is missing, also of processors.
func TestStart(t *testing.T) {
	hosts := []Host{
		{Node: 1, Name: "n1", Memory: 64 * gib, Free: 32 * gib, CPUs: 4, Promised: 31, Up: true},
		{Node: 2, Name: "n2", Memory: 16 * gib, Free: 8 * gib, CPUs: 4, Promised: 8, Up: true},
	}
	for _, test := range []struct {
		name   string
		cpus   int
		memory model.Bytes
		node   model.NodeID
		want   model.NodeID
		err    string
	}{
		{"chosen", 1, gib, 0, 1, ""},
		{"chosen-for-its-processors", 2, gib, 0, 2, ""},
		{"no-memory", 1, 48 * gib, 0, 0, "has 49152 MiB of memory to spare: the most is 32768 MiB"},
		{"no-processors-where-memory-is", 2, 16 * gib, 0, 0, "machines on n1 have 31 processors, the vm needs 2, and 32"},
		{"no-processors-at-all", 30, gib, 0, 0, "processors"},
		{"named", 1, gib, 2, 2, ""},
		{"named-and-full", 2, gib, 1, 0, "machines on n1 have 31 processors"},
		{"named-and-unknown", 2, gib, 9, 0, "away"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := Start(model.VM{Name: "vm", CPUs: test.cpus, Memory: test.memory}, test.node, hosts)
			if test.err == "" && (err != nil || got != test.want) {
				t.Errorf("got %v, %v, want %v", got, err, test.want)
			}
			if test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("the error is %v, want %q in it", err, test.err)
			}
		})
	}
	crowded := model.VM{Name: "vm", CPUs: 30, Memory: gib}
	if to, err := VM(crowded, hosts); err != nil || to == 0 {
		t.Errorf("what lost its node is not placed for want of processors: %v", err)
	}
}

func TestCreate(t *testing.T) {
	hosts := []Host{{Node: 1, Memory: 15 * gib, Up: true}, {Node: 2, Memory: 31 * gib, Up: true}}
	if err := Create(model.VM{Memory: 31 * gib}, hosts); err != nil {
		t.Errorf("what fits when the node is empty: %v", err)
	}
	err := Create(model.VM{Memory: 32 * gib}, hosts)
	if model.CodeOf(err) != model.NoSpace || !strings.Contains(err.Error(), "31744 MiB") {
		t.Errorf("what fits nowhere: %v", err)
	}
	hosts[1].Up = false
	if err := Create(model.VM{Memory: 32 * gib}, hosts); err != nil {
		t.Errorf("while a node is away: %v", err)
	}
}

// The worst loss is what would not run, by turn; and adding it up is not enough: the
// room must be in one piece.
func TestWorstLoss(t *testing.T) {
	vm := func(id model.VMID, node model.NodeID, memory model.Bytes) model.VM {
		return model.VM{ID: id, CPUs: 1, Memory: memory, Node: node, Power: model.PowerOn, Created: time.Unix(int64(id), 0)}
	}
	host := func(node model.NodeID, memory model.Bytes, vms ...model.VM) Host {
		h := Host{Node: node, Memory: memory, Free: memory, Up: true}
		for _, v := range vms {
			if v.Node == node {
				h.Take(v)
			}
		}
		return h
	}
	for _, test := range []struct {
		name   string
		vms    []model.VM
		memory [3]model.Bytes
		node   model.NodeID
		left   []model.VMID
	}{
		{"all-find-room", []model.VM{vm(1, 1, 8*gib), vm(2, 2, 4*gib)}, [3]model.Bytes{16 * gib, 16 * gib, 16 * gib}, 1, nil},
		{
			"one-is-too-many",
			[]model.VM{vm(1, 1, 8*gib), vm(2, 1, 8*gib), vm(3, 2, 8*gib), vm(4, 3, 8*gib)},
			[3]model.Bytes{16 * gib, 16 * gib, 8 * gib},
			1,
			[]model.VMID{2},
		},
		{
			"not-in-one-piece",
			[]model.VM{vm(1, 1, 12*gib), vm(2, 2, 8*gib), vm(3, 3, 8*gib)},
			[3]model.Bytes{16 * gib, 16 * gib, 16 * gib},
			1,
			[]model.VMID{1},
		},
		{"nothing-runs", nil, [3]model.Bytes{16 * gib, 16 * gib, 16 * gib}, 1, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var hosts []Host
			for i, m := range test.memory {
				hosts = append(hosts, host(model.NodeID(i+1), m, test.vms...))
			}
			before := slices.Clone(hosts)
			got := WorstLoss(test.vms, hosts)
			if got.Node != test.node || !slices.Equal(got.VMs, test.left) {
				t.Errorf("got %+v, want %v of node %d", got, test.left, test.node)
			}
			for i := range hosts {
				if hosts[i].Free != before[i].Free {
					t.Error("the hosts were changed")
				}
			}
		})
	}
}
