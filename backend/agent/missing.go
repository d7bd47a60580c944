package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"drystone.example/drystone/backend/block/volume"
	"drystone.example/drystone/backend/model"
)

// missingEvery is how often a node looks for disks that are not there any more.
const missingEvery = 3 * time.Second

// missing notices what says nothing by itself: a disk whose file was removed, which
// goes on working until the daemon ends and is lost then; and members on lost disks of
// volumes that are held and not written to.
func (a *Agent) missing(ctx context.Context) {
	tick := time.NewTicker(missingEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for id, d := range a.disks.all() {
			if err := vanished(a.disks.fileOf(id)); err != nil {
				d.Fail(err)
			}
		}
		a.probeLost()
	}
}

// A file is where a disk lies, as it was when the disk was opened.
type file struct {
	path string
	info os.FileInfo // nil: it is no file, or could not be looked at
}

func fileAt(path string) file {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return file{path: path}
	}
	return file{path, info}
}

// vanished says that the file of a disk is not where it was, or is another one. That
// it cannot be looked at says nothing.
func vanished(f file) error {
	if f.info == nil {
		return nil
	}
	switch now, err := os.Stat(f.path); {
	case errors.Is(err, fs.ErrNotExist):
		return model.Errorf(model.NotFound, "the file of the disk was removed")
	case err == nil && !os.SameFile(f.info, now):
		return model.Errorf(model.NotFound, "there is another file in the place of the disk's")
	}
	return nil
}

// probeLost sends something to the members of the held volumes that have one on a
// lost disk, so that it is missed, dropped and rebuilt.
func (a *Agent) probeLost() {
	view := a.cfg.Meta.Local()
	var lost []model.DiskID
	for _, d := range view.Disks() {
		if (pool{a}).Reach(d.ID) == volume.Failed {
			lost = append(lost, d.ID)
		}
	}
	if len(lost) == 0 {
		return
	}
	for _, h := range a.holds.list() {
		rec, err := view.Volume(h.id)
		if ready := a.holds.serving(h.id); err == nil && ready != nil && counted(rec, lost) {
			ready.volume.Probe()
		}
	}
}

// counted reports whether a volume has active members on some disks.
func counted(rec model.Volume, disks []model.DiskID) bool {
	return slices.ContainsFunc(rec.Columns, func(c model.Column) bool {
		return slices.ContainsFunc(c.Members, func(m model.Member) bool {
			return m.State == model.Active && slices.Contains(disks, m.Disk)
		})
	})
}
