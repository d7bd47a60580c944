package control

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"drystone.example/drystone/backend/model"
)

func TestFullness(t *testing.T) {
	for used, want := range map[model.Bytes]model.Severity{
		0: "", 74: "", 75: model.Warning, 84: model.Warning, 85: model.Serious, 91: model.Serious,
		92: model.Critical, 100: model.Critical,
	} {
		if share, got := fullness(used, 100); got != want || share != int(used) {
			t.Errorf("fullness(%d, 100) = %d, %q, want %q", used, share, got, want)
		}
	}
	if _, got := fullness(0, 0); got != "" {
		t.Errorf("of nothing: %q", got)
	}
}

// An alarm keeps the time it began at for as long as it is there.
func TestAlarmsAreDated(t *testing.T) {
	first, later := time.Unix(1000, 0), time.Unix(2000, 0)
	full := model.Alarm{Code: "disk_full", Object: "disk 1", Text: "75 %"}
	before := since([]model.Alarm{full}, nil, first)
	full.Text = "76 %"
	other := model.Alarm{Code: "disk_full", Object: "disk 2"}
	got := since([]model.Alarm{full, other}, before, later)
	full.Since, other.Since = first, later
	if diff := cmp.Diff([]model.Alarm{full, other}, got); diff != "" {
		t.Error(diff)
	}
}
