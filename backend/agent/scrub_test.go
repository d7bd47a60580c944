package agent

import (
	"testing"
	"time"

	"drystone.example/drystone/backend/model"
)

// A disk is scrubbed within a week of when it was added or last scrubbed, not twice
// at a time, and at once if a pass was interrupted.
func TestScrubDue(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	const day = 24 * time.Hour
	for _, c := range []struct {
		name  string
		added time.Time
		usage model.DiskUsage
		want  bool
	}{
		{"new", ago(5 * day), model.DiskUsage{}, false},
		{"never scrubbed for a week", ago(7 * day), model.DiskUsage{}, true},
		{"scrubbed lately", ago(70 * day), model.DiskUsage{Scrubbed: ago(5 * day)}, false},
		{"scrubbed a week ago", ago(70 * day), model.DiskUsage{Scrubbed: ago(7 * day)}, true},
		{"under way", ago(70 * day), model.DiskUsage{Scrub: model.Scrub{Began: ago(day), Running: true}}, false},
		{"interrupted", ago(5 * day), model.DiskUsage{Scrubbed: ago(2 * day), Scrub: model.Scrub{Began: ago(day)}}, true},
	} {
		for _, id := range []model.DiskID{1, 1 << 45, 1<<63 + 12345} {
			if got := scrubDue(model.Disk{ID: id, Added: c.added}, c.usage, now); got != c.want {
				t.Errorf("%s, disk %s: scrubDue = %v, want %v", c.name, id, got, c.want)
			}
		}
	}
}

// The copies of a volume are compared within a day of the last time, or of its making.
func TestCompareDue(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, c := range []struct {
		name           string
		created, ended time.Time
		want           bool
	}{
		{"new", ago(19 * time.Hour), time.Time{}, false},
		{"never", ago(24 * time.Hour), time.Time{}, true},
		{"lately", ago(1000 * time.Hour), ago(19 * time.Hour), false},
		{"a day ago", ago(1000 * time.Hour), ago(24 * time.Hour), true},
	} {
		for _, id := range []model.VolumeID{1, 1 << 43, 1<<63 + 12345} {
			rec := model.Volume{ID: id, Created: c.created, Scrub: model.VolumeScrub{Ended: c.ended}}
			if got := compareDue(rec, now); got != c.want {
				t.Errorf("%s, volume %s: compareDue = %v, want %v", c.name, id, got, c.want)
			}
		}
	}
}
