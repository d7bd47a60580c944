package agent

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"drystone.example/drystone/backend/block/device"
	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
)

// A place is where a disk was found by its superblock.
type place struct {
	disk.Identity

	path string
	info fs.FileInfo    // of a file
	dev  *device.Device // nil: it is a file
}

// is reports whether this is the file or device that a disk was opened on.
func (p place) is(path string, f file) bool {
	if p.dev == nil && f.info != nil {
		return os.SameFile(p.info, f.info)
	}
	return p.path == path
}

// search finds the disks of this cluster that this node could open: in the files it
// was given, in other files of the same folders, and on all block devices of the
// machine. It reads superblocks and changes nothing. Disks of other clusters are left
// out; where one is in the place of a disk of this node, that is reported, and so is a
// disk of this node that is nowhere.
func (a *Agent) search(pool []model.Disk) map[model.DiskID][]place {
	given := slices.Clone(a.cfg.Disks)
	for _, rec := range pool {
		if rec.Node == a.cfg.Self && !onDevice(rec.Path) && !slices.Contains(given, rec.Path) {
			given = append(given, rec.Path)
		}
	}
	all := map[model.DiskID][]place{}
	add := func(p place) {
		if p.Cluster != a.cfg.Cluster {
			a.foreign(pool, p)
			return
		}
		same := func(o place) bool { return o.dev == nil && p.dev == nil && os.SameFile(o.info, p.info) }
		if !slices.ContainsFunc(all[p.Disk], same) {
			all[p.Disk] = append(all[p.Disk], p)
		}
	}
	for _, path := range a.candidates(given) {
		p, err := fileDisk(path)
		listed := slices.Contains(given, path)
		switch {
		case err == nil:
			add(p)
		case listed && a.finds.news(path, err.Error()):
			a.log.Error("disk was not found", "path", path, "err", err)
		}
	}
	a.searchDevices(add)
	for _, id := range a.cfg.Devices {
		if len(all[id]) == 0 && a.finds.news(id.String(), "nowhere") {
			a.log.Error("disk was not found on any device", "disk", id)
		}
	}
	return all
}

// foreign says that another cluster's disk is where one of this node's was.
func (a *Agent) foreign(pool []model.Disk, p place) {
	for _, rec := range pool {
		if rec.Node != a.cfg.Self || rec.Path != p.path {
			continue
		}
		if a.finds.news(p.path, p.Cluster.String()) {
			a.log.Error("disk is of another cluster and is left alone", "path", p.path, "cluster", p.Cluster)
		}
		a.finds.failed(rec.ID, "", model.Errorf(model.Conflict, "the disk in its place belongs to cluster %s", p.Cluster))
	}
}

// onDevice reports whether the path of a disk in the record names a device, which no
// other path does (AddDisk).
func onDevice(path string) bool { return strings.HasPrefix(path, "/dev/") }

// candidates lists the files a disk may be in: those given, then those beside them.
func (a *Agent) candidates(given []string) []string {
	out := slices.Clone(given)
	var folders []string
	if a.cfg.Mounts != "" {
		folders = append(folders, a.cfg.Mounts)
	}
	for _, path := range given {
		folders = append(folders, filepath.Dir(path))
	}
	slices.Sort(folders)
	for _, dir := range slices.Compact(folders) {
		entries, _ := os.ReadDir(dir) // of one that cannot be read nothing is found
		for _, e := range entries {
			if e.Type().IsRegular() {
				out = append(out, filepath.Join(dir, e.Name()))
			}
		}
	}
	return out
}

// fileDisk looks for a disk in a file.
func fileDisk(path string) (place, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return place{}, model.Errorf(model.NotFound, "there is no disk here: %w", err)
	case err != nil:
		return place{}, err
	case !info.Mode().IsRegular():
		return place{}, model.Errorf(model.NotFound, "%s is no file", path)
	}
	id, err := disk.Identify(path)
	return place{Identity: id, path: path, info: info}, err
}

// searchDevices looks on all block devices of the machine.
func (a *Agent) searchDevices(add func(place)) {
	if a.cfg.Mounts == "" {
		return // this node has no disks on devices
	}
	found, err := device.Find()
	if err != nil && a.finds.news("devices", err.Error()) {
		a.log.Error("devices were not searched for disks", "err", err)
	}
	for _, d := range found {
		add(place{Identity: d.Disk, path: d.Path, dev: &d})
	}
}
