package control

import (
	"strings"
	"testing"
	"time"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/placement"
)

// A machine that nobody has room for is an alarm as long as that is so, beside others.
func TestUnplacedIsAnAlarm(t *testing.T) {
	c := New(Config{})
	c.mover.now.Alarms = []model.Alarm{{Code: "pool_full", Object: "pool"}}
	first, later := time.Unix(1000, 0), time.Unix(2000, 0)
	vm := model.VM{ID: 7, Name: "web", Memory: 512 << 20}
	_, why := placement.VM(vm, []placement.Host{{Node: 1, Up: true, Free: 1 << 20}})
	c.unplace([]unplaced{{vm, why}}, first)
	c.unplace([]unplaced{{vm, why}}, later)
	got := c.Leading().Alarms
	if len(got) != 2 || got[0].Code != "vm_unplaced" || got[0].Severity != model.Critical || got[0].Since != first ||
		!strings.Contains(got[0].Text, "machine web (512 MiB)") ||
		!strings.Contains(got[0].Text, "the most is 1 MiB") {
		t.Errorf("the alarms are %+v", got)
	}
	c.unplace(nil, later)
	if got := c.Leading().Alarms; len(got) != 1 {
		t.Errorf("the alarms are %+v when it has room", got)
	}
}
