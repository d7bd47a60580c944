package device

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/model"
)

const (
	ours   = model.ClusterID(0x1111)
	theirs = model.ClusterID(0x2222)
)

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	var said strings.Builder
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), name, args...)
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, said.String())
	}
	return strings.TrimSpace(string(out))
}

// backing makes the sparse file that a device of the test lies in.
func backing(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("loop devices need root")
	}
	file := filepath.Join(t.TempDir(), "device")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 512*mib+20480); err != nil {
		t.Fatal(err)
	}
	return file
}

// plug makes a block device of a file; it is unplugged by the function returned, and
// at the end of the test.
func plug(t *testing.T, file string, args ...string) (path string, unplug func()) {
	t.Helper()
	path = run(t, "losetup", append(args, "--find", "--show", file)...)
	out := false
	unplug = func() {
		if !out {
			out = true
			run(t, "losetup", "--detach", path)
		}
	}
	t.Cleanup(unplug)
	return path, unplug
}

func newDevice(t *testing.T) string {
	t.Helper()
	path, _ := plug(t, backing(t), "--partscan")
	return path
}

func look(t *testing.T, path string) Device {
	t.Helper()
	d, err := Look(path)
	if err != nil {
		t.Fatalf("Look(%s) = %v", path, err)
	}
	return d
}

func options(cluster model.ClusterID, mounts string) Options {
	return Options{Options: disk.Options{Cluster: cluster}, Mounts: mounts}
}

// wipe is options for a device that may be wiped.
func wipe(mounts string) Options {
	o := options(ours, mounts)
	o.Wipe = true
	return o
}

// format makes a disk of a device and returns how it looks then.
func format(t *testing.T, path, mounts string, cluster model.ClusterID) Device {
	t.Helper()
	made, err := Create(t.Context(), look(t, path), options(cluster, mounts))
	if err != nil {
		t.Fatalf("Create = %v", err)
	}
	if err := made.Close(); err != nil {
		t.Fatalf("Close = %v", err)
	}
	d := look(t, path)
	want := disk.Identity{Cluster: cluster, Disk: made.ID(), Journal: d.Disk.Journal}
	if d.Disk != want || want.Journal == 0 {
		t.Fatalf("Look after Create finds disk %v, want %v", d.Disk, want)
	}
	return d
}

func open(t *testing.T, d Device, mounts string) *disk.Disk {
	t.Helper()
	opened, err := Open(t.Context(), d, mounts, disk.Options{Cluster: ours})
	if err != nil {
		t.Fatalf("Open(%s) = %v", d.Path, err)
	}
	t.Cleanup(func() { _ = opened.Close() }) // again, where the test closed it
	return opened
}

func refused(t *testing.T, err error, code model.Code, text string) {
	t.Helper()
	if model.CodeOf(err) != code || !strings.Contains(err.Error(), text) {
		t.Fatalf("got %q (%s), want %q (%s)", err, model.CodeOf(err), text, code)
	}
}

// What a disk promised on a device is there when it is opened again, under another
// name of the device; and nothing is left mounted behind it.
func TestKeepsWhatItHolds(t *testing.T) {
	file, mounts := backing(t), t.TempDir()
	path, unplug := plug(t, file, "--partscan")
	d := open(t, format(t, path, mounts, ours), mounts)
	want, err := d.Prepare(t.Context(), disk.Prepare{Volume: 7, Generation: 3})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatalf("Close = %v", err)
	}
	if left, err := os.ReadDir(mounts); err != nil || len(left) > 0 {
		t.Fatalf("after Close there is %v, %v in the folder of mounts", left, err)
	}
	unplug()
	newDevice(t) // takes the name
	again, _ := plug(t, file, "--partscan")
	if again == path {
		t.Fatalf("the device has its old name, %s", path)
	}

	found, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(found, func(f Device) bool { return f.Disk.Disk == d.ID() })
	if i < 0 || found[i].Path != again {
		t.Fatalf("Find = %v, want disk %s on %s", found, d.ID(), again)
	}
	d = open(t, found[i], mounts)
	_, err = d.Prepare(t.Context(), disk.Prepare{Volume: 7, Generation: 2})
	if model.CodeOf(err) != model.Fenced {
		t.Errorf("an older generation than %v was promised: %v", want, err)
	}
	if err := d.Close(); err != nil {
		t.Fatalf("Close = %v", err)
	}
}

// A daemon that was killed leaves the map mounted; the next one goes on with it, and
// one that finds the disk open does no harm to who has it.
func TestTakesOverAMount(t *testing.T) {
	path, mounts := newDevice(t), t.TempDir()
	dev := format(t, path, mounts, ours)
	m, _ := dev.partition(mapPartition)
	if fresh, err := mount(m, filepath.Join(mounts, dev.Disk.Disk.String())); err != nil || !fresh {
		t.Fatalf("mount = %v, %v", fresh, err)
	}
	d := open(t, dev, mounts)
	_, err := Open(t.Context(), dev, mounts, disk.Options{Cluster: ours})
	refused(t, err, model.Conflict, "in use")
	if _, err := d.Prepare(t.Context(), disk.Prepare{Volume: 7, Generation: 3}); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatalf("Close = %v", err)
	}
}

// A mount of a device that has gone is put aside for the one that came.
func TestPutsAnOldMountAside(t *testing.T) {
	mounts := t.TempDir()
	dev := format(t, newDevice(t), mounts, ours)
	dir := filepath.Join(mounts, dev.Disk.Disk.String())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", "-t", "tmpfs", "none", dir)
	if err := open(t, dev, mounts).Close(); err != nil {
		t.Fatalf("Close = %v", err)
	}
}

func TestRefusesDataUnlessWiped(t *testing.T) {
	fill := func(off int64, b []byte) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			t.Helper()
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt(b, off); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		spoil func(t *testing.T, path string)
		want  string
	}{
		"file system": {func(t *testing.T, path string) {
			t.Helper()
			run(t, "mkfs.ext4", "-q", path)
		}, "ext4"},
		"swap": {func(t *testing.T, path string) {
			t.Helper()
			run(t, "mkswap", path)
		}, "swap"},
		"partition table": {fill(510, []byte{0x55, 0xaa}), "holds data"},
		"unknown, start":  {fill(5000, []byte{1}), "unknown kind"},
		"unknown, end":    {fill(512*mib, []byte{1}), "unknown kind"},
		"disk of another cluster": {func(t *testing.T, path string) {
			t.Helper()
			format(t, path, t.TempDir(), theirs)
		}, "of cluster " + theirs.String()},
	} {
		t.Run(name, func(t *testing.T) {
			path, mounts := newDevice(t), t.TempDir()
			c.spoil(t, path)
			before := readAll(t, path)
			_, err := Create(t.Context(), look(t, path), options(ours, mounts))
			refused(t, err, model.Conflict, c.want)
			if !bytes.Equal(readAll(t, path), before) {
				t.Fatal("the device that was refused was written to")
			}
			d, err := Create(t.Context(), look(t, path), wipe(mounts))
			if err != nil {
				t.Fatalf("Create = %v, with leave to wipe", err)
			}
			id := d.ID()
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if d := open(t, look(t, path), mounts); d.ID() != id {
				t.Errorf("disk %s was opened, %s was made", d.ID(), id)
			}
		})
	}
}

// readAll reads the parts of a device that something could be recognised by.
func readAll(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // only read
	b := make([]byte, 8*mib)
	for i, off := range []int64{0, 508 * mib} {
		if _, err := f.ReadAt(b[i*4*mib:(i+1)*4*mib], off); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// A device in use is refused, be it to be wiped or not.
func TestRefusesInUse(t *testing.T) {
	t.Run("mounted", func(t *testing.T) {
		path, dir := newDevice(t), t.TempDir()
		run(t, "mkfs.ext4", "-q", path)
		run(t, "mount", path, dir)
		defer run(t, "umount", dir)
		_, err := Create(t.Context(), look(t, path), wipe(t.TempDir()))
		refused(t, err, model.Conflict, "in use")
	})
	t.Run("open disk", func(t *testing.T) {
		path, mounts := newDevice(t), t.TempDir()
		d := open(t, format(t, path, mounts, ours), mounts)
		_, err := Create(t.Context(), look(t, path), wipe(mounts))
		refused(t, err, model.Conflict, "in use")
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestRefusesWhatIsNoWholeDevice(t *testing.T) {
	path, mounts := newDevice(t), t.TempDir()
	format(t, path, mounts, ours)
	_, err := Look(path + "p1")
	refused(t, err, model.Invalid, "whole device, "+path)
	_, err = Look("/dev/null")
	refused(t, err, model.Invalid, "not a block device")
	_, err = Look("/dev/drystone-nothing")
	refused(t, err, model.NotFound, "no device")

	locked, _ := plug(t, backing(t), "--partscan", "--read-only")
	_, err = Create(t.Context(), look(t, locked), options(ours, mounts))
	refused(t, err, model.Invalid, "read-only")
}

func TestForeignDiskIsNotOpened(t *testing.T) {
	path, mounts := newDevice(t), t.TempDir()
	dev := format(t, path, mounts, theirs)
	_, err := Open(t.Context(), dev, mounts, disk.Options{Cluster: ours})
	refused(t, err, model.Conflict, "belongs to cluster "+theirs.String())
}

// A device on which Create fails is an empty one afterwards, and may be tried again.
func TestFailedCreateLeavesNothing(t *testing.T) {
	path, mounts := newDevice(t), t.TempDir()
	notAFolder := filepath.Join(mounts, "file")
	if err := os.WriteFile(notAFolder, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(t.Context(), look(t, path), options(ours, notAFolder)); err == nil {
		t.Fatal("Create succeeded without a folder for its map")
	}
	format(t, path, mounts, ours)
}

// Both copies of the partition table are what libblkid and the kernel understand.
func TestPartitionTable(t *testing.T) {
	for _, sector := range []string{"512", "4096"} {
		t.Run(sector, func(t *testing.T) {
			path, _ := plug(t, backing(t), "--partscan", "--sector-size", sector)
			dev := format(t, path, t.TempDir(), ours)
			p, err := layOut(dev.Size, dev.sector)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []struct{ number, start, end int64 }{
				{mapPartition, p.mapStart, p.mapEnd}, {rawPartition, p.rawStart, p.rawEnd},
			} {
				for _, sys := range dev.partitions() {
					n, err := number(sys, "partition")
					if err != nil || n != want.number {
						continue
					}
					start, _ := number(sys, "start")
					size, _ := number(sys, "size")
					if start*512 != want.start || (start+size)*512 != want.end {
						t.Errorf("the kernel has partition %d at %d, %d; want %v", n, start*512, size*512, want)
					}
				}
			}
			var out struct {
				Signatures []struct{ Type, Offset string } `json:"signatures"`
			}
			if err := json.Unmarshal([]byte(run(t, "wipefs", "--no-act", "--json", path)), &out); err != nil {
				t.Fatal(err)
			}
			tables := 0
			for _, s := range out.Signatures {
				if s.Type == "gpt" {
					tables++
				}
			}
			if tables != 2 {
				t.Errorf("wipefs finds %v, want two copies of the gpt", out.Signatures)
			}
		})
	}
}
