package control

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
	slices.SortFunc(vms, turn)
	var got []string
	for _, vm := range vms {
		got = append(got, vm.Name)
	}
	if want := "high, named normal, late, low"; strings.Join(got, ", ") != want {
		t.Errorf("the turn is %v, want %s", got, want)
	}
}

// A machine that nobody has room for is an alarm as long as that is so, beside others.
func TestUnplacedIsAnAlarm(t *testing.T) {
	c := New(Config{})
	c.mover.now.Alarms = []model.Alarm{{Code: "pool_full", Object: "pool"}}
	first, later := time.Unix(1000, 0), time.Unix(2000, 0)
	vm := model.VM{ID: 7, Name: "web", Memory: 512 << 20}
	c.unplace([]model.VM{vm}, first)
	c.unplace([]model.VM{vm}, later)
	got := c.Leading().Alarms
	if len(got) != 2 || got[0].Code != "vm_unplaced" || got[0].Severity != model.Critical || got[0].Since != first ||
		!strings.Contains(got[0].Text, "machine web (512 MiB)") {
		t.Errorf("the alarms are %+v", got)
	}
	c.unplace(nil, later)
	if got := c.Leading().Alarms; len(got) != 1 {
		t.Errorf("the alarms are %+v when it has room", got)
	}
}
