package placement

import (
	"slices"
	"strings"
	"testing"
	"time"

	"drystone.example/drystone/backend/model"
)

// Where there is not room for all, machines of a higher priority come first, then
// older ones.
func TestTurn(t *testing.T) {
	old, late := time.Unix(1000, 0), time.Unix(2000, 0)
	vms := []model.VM{
		{Name: "low", Priority: model.PriorityLow, Created: old},
		{Name: "late", Created: late},
		{Name: "named normal", Priority: model.PriorityNormal, Created: old},
		{Name: "high", Priority: model.PriorityHigh, Created: late},
	}
	slices.SortFunc(vms, Turn)
	var got []string
	for _, vm := range vms {
		got = append(got, vm.Name)
	}
	if want := "high, named normal, late, low"; strings.Join(got, ", ") != want {
		t.Errorf("the turn is %v, want %s", got, want)
	}
}

// Where a machine goes, and why nowhere.
func TestVM(t *testing.T) {
	const gib = 1 << 30
	base := func() []Host {
		return []Host{
			{Node: 1, Name: "n1", Free: 4 * gib, Up: true},
			{Node: 2, Name: "n2", Free: 8 * gib, Guests: 3, Up: true},
			{Node: 3, Name: "n3", Free: 16 * gib},
		}
	}
	all := func() []Host {
		hosts := base()
		hosts[2].Up = true
		return hosts
	}
	group := map[string][]model.VMID{"db": {8}}
	for name, c := range map[string]struct {
		memory model.Bytes
		wish   model.Affinity
		hosts  []Host
		change func([]Host)
		want   model.NodeID
		why    string
	}{
		"most free":              {memory: 6 * gib, hosts: base(), want: 2},
		"no room":                {memory: 12 * gib, hosts: base(), why: "the most is 8192 MiB"},
		"nobody":                 {memory: gib, why: "no node runs guests now"},
		"preferred":              {memory: gib, wish: model.Affinity{Prefer: 1}, hosts: all(), want: 1},
		"preferred is full":      {memory: 6 * gib, wish: model.Affinity{Prefer: 1}, hosts: all(), want: 3},
		"backup":                 {memory: 6 * gib, wish: model.Affinity{Prefer: 1, Backup: 2}, hosts: all(), want: 2},
		"strict":                 {memory: 6 * gib, wish: model.Affinity{Prefer: 1, Strict: true}, hosts: all(), why: "n1 has 4096 MiB"},
		"strict, away":           {memory: gib, wish: model.Affinity{Prefer: 3, Strict: true}, hosts: base(), why: "n3 is away"},
		"strict, backup":         {memory: 6 * gib, wish: model.Affinity{Prefer: 1, Backup: 2, Strict: true}, hosts: all(), want: 2},
		"maintenance":            {memory: gib, hosts: all(), change: func(h []Host) { h[2].Maintenance = true }, want: 2},
		"preferred, maintenance": {memory: gib, wish: model.Affinity{Prefer: 3}, hosts: all(), change: func(h []Host) { h[2].Maintenance = true }, want: 2},
		"apart":                  {memory: gib, wish: model.Affinity{Apart: []string{"db"}}, hosts: all(), change: func(h []Host) { h[2].Apart = group }, want: 2},
		"apart before preferred": {memory: gib, wish: model.Affinity{Prefer: 3, Apart: []string{"db"}}, hosts: all(), change: func(h []Host) { h[2].Apart = group }, want: 2},
		"together if need be":    {memory: 12 * gib, wish: model.Affinity{Apart: []string{"db"}}, hosts: all(), change: func(h []Host) { h[2].Apart = group }, want: 3},
		"not apart from itself": {memory: gib, wish: model.Affinity{Apart: []string{"db"}}, hosts: all(), change: func(h []Host) {
			h[2].Apart = map[string][]model.VMID{"db": {7}}
		}, want: 3},
	} {
		if c.change != nil {
			c.change(c.hosts)
		}
		got, err := VM(model.VM{ID: 7, Name: "web", Memory: c.memory, Affinity: c.wish}, c.hosts)
		said := ""
		if err != nil {
			said = err.Error()
		}
		if got != c.want || !strings.Contains(said, c.why) || (err == nil) != (c.why == "") {
			t.Errorf("%s: VM = %v, %v; want node %d, %q", name, got, err, c.want, c.why)
		}
	}
}
