package sim

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"drystone.example/drystone/backend/agent"
	"drystone.example/drystone/backend/block/device"
	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/model"
)

// A device with a disk of the pool is not wiped, though it was ordered, also by a node
// that has not heard that the disk is in the pool: it asks the others first.
func TestDeviceOfThePoolIsNotWiped(t *testing.T) {
	path := loopDevice(t)
	w := newWorld(t, 1, false)
	t.Cleanup(func() {
		for _, n := range w.nodes {
			n.crash(0)
		}
	})
	before := formatDevice(t, path, w.ca.ID)

	late := w.nodes[w.disks]
	w.links(late, func(o *node) { w.net.Cut(o.name, late.name); w.net.Cut(late.name, o.name) })
	w.must(w.leader(), command.DiskAdd{Disk: model.Disk{
		ID: before.Disk, Node: w.nodes[0].id, Path: "/dev/moved", Size: 1 << 30,
	}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := late.now().agent.AddDisk(ctx, model.System, agent.NewDisk{Path: path, Wipe: true})
	if model.CodeOf(err) != model.Unavailable {
		t.Errorf("a node that is cut off wipes a device: %v", err)
	}
	if now, err := device.Look(path); err != nil || now.Disk != before {
		t.Fatalf("the device holds %v, %v, want %v", now.Disk, err, before)
	}

	w.links(late, func(o *node) { w.net.Join(o.name, late.name) })
	_, err = late.now().agent.AddDisk(t.Context(), model.System, agent.NewDisk{Path: path, Wipe: true})
	if model.CodeOf(err) != model.Conflict {
		t.Errorf("a node that is back wipes a device: %v", err)
	}
	if now, err := device.Look(path); err != nil || now.Disk != before {
		t.Errorf("the device holds %v, %v, want %v", now.Disk, err, before)
	}
}

// A disk that is added while the answer of the others is lost is in the pool and is
// there: what the record names is kept.
func TestDiskIsThereThoughTheAnswerIsLost(t *testing.T) {
	w := newWorld(t, 1, false)
	t.Cleanup(func() {
		for _, n := range w.nodes {
			n.crash(0)
		}
	})
	adds := w.nodes[w.disks]
	for w.leader() == adds.now().rec { // another leads
		w.links(adds, func(o *node) { w.net.Partition(o.name, adds.name) })
		w.leader()
		w.links(adds, func(o *node) { w.net.Join(o.name, adds.name) })
	}
	path := filepath.Join(t.TempDir(), "disk")
	named := func(view *state.View) bool {
		return slices.ContainsFunc(view.Disks(), func(d model.Disk) bool { return d.Path == path })
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	adds.saves = sync.OnceFunc(func() { // the last thing before the record is asked
		_, err := adds.now().rec.View(ctx) // there is a connection to the leader
		w.check(err)
		w.links(adds, func(o *node) { w.net.Cut(o.name, adds.name) })
		w.work.Go(func() {
			for ctx.Err() == nil && !named(w.nodes[0].now().rec.Local()) {
				time.Sleep(10 * time.Millisecond)
			}
			cancel() // nobody waits for the answer any more
		})
	})
	_, err := adds.now().agent.AddDisk(ctx, model.System, agent.NewDisk{Path: path, Size: 64 << 20})
	w.work.Wait()
	if model.CodeOf(err) != model.Unavailable {
		t.Errorf("without an answer: %v", err)
	}
	w.links(adds, func(o *node) { w.net.Join(o.name, adds.name) })
	view, err := w.leader().View(t.Context())
	w.check(err)
	for _, rec := range view.Disks() {
		if rec.Path != path {
			continue
		}
		if id, err := disk.Identify(path); err != nil || id.Disk != rec.ID {
			t.Errorf("the record names disk %s, and there is %s, %v", rec.ID, id.Disk, err)
		}
		for _, d := range adds.now().agent.Usage(t.Context())[adds.id].Disks {
			if d.Disk == rec.ID {
				return
			}
		}
		t.Errorf("disk %s is in the record and not open", rec.ID)
		return
	}
	t.Error("the disk was not added; the test shows nothing")
}

// loopDevice makes a block device that goes when the test ends.
func loopDevice(t *testing.T) (path string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("loop devices need root")
	}
	file := filepath.Join(t.TempDir(), "device")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 512<<20); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--partscan", "--find", "--show", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	path = strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if err := exec.Command("losetup", "--detach", path).Run(); err != nil {
			t.Error(err)
		}
	})
	return path
}

// formatDevice makes a disk of a cluster of a device.
func formatDevice(t *testing.T, path string, cluster model.ClusterID) disk.Identity {
	t.Helper()
	dev, err := device.Look(path)
	if err != nil {
		t.Fatal(err)
	}
	d, err := device.Create(t.Context(), dev, device.Options{
		Options: disk.Options{Cluster: cluster}, Mounts: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return disk.Identity{Cluster: cluster, Disk: d.ID(), Journal: 1}
}
