package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/bundle"
	"drystone.example/drystone/backend/model"
)

// A machine leaves the cluster as files: each disk is read from a snapshot, wherever its
// volume is held, and written as an image; it comes in the same way back.
//
// Invariant: what is exported is of one moment, which the snapshots are of; and a file that
// grows never takes the room that the node's own record needs (leastRoom), for qemu-img runs
// under a bound of the size of its file.

// The files of exports.
const (
	// leastRoom stays free where an export is written, and leastShare of the file system.
	leastRoom  = model.Bytes(1 << 30)
	leastShare = 20 // 1 of so many
)

// RoomIn is how much may be written to the file system of a folder.
func RoomIn(dir string) (model.Bytes, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("look how full the file system of the export is: %w", err)
	}
	total := model.Bytes(st.Blocks) * model.Bytes(st.Bsize)
	return model.Bytes(st.Bavail)*model.Bytes(st.Bsize) - max(leastRoom, total/leastShare), nil
}

// ExportImage writes a snapshot as an image file of a format (qcow2, or vmdk: one that is
// compressed and for streams) to a path where nothing is yet, and says what it became.
func (a *Agent) ExportImage(ctx context.Context, snap model.Snapshot, format, path string,
	progress func(share float64),
) (d bundle.Disk, err error) {
	d = bundle.Disk{File: filepath.Base(path), Format: format, Size: snap.Size}
	room, err := RoomIn(filepath.Dir(path))
	if err != nil {
		return d, err
	}
	serve, cancel := context.WithCancel(ctx)
	defer cancel()
	socket := filepath.Join(a.cfg.Run, "exp-"+snap.ID.String()+".sock")
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { // ends with serve
		ended <- a.ExportSnapshot(serve, snap.ID, socket, func(string) { close(ready) })
	}()
	select {
	case err := <-ended:
		return d, err
	case <-ready:
	}
	err = writeImage(ctx, socket, format, path, room, progress)
	select {
	case gone := <-ended: // so it is not the tool's fault
		return d, errors.Join(gone, err)
	default:
	}
	cancel()
	if err := errors.Join(err, <-ended); err != nil {
		return d, err
	}
	return d, describeFile(ctx, path, &d)
}

// writeImage has qemu-img write what is served at an NBD socket to a file of at most room
// bytes.
func writeImage(ctx context.Context, socket, format, path string, room model.Bytes, progress func(float64)) error {
	if room <= 0 {
		return noRoom()
	}
	args := []string{
		"--as=" + imageMemory, "--fsize=" + strconv.FormatInt(int64(room), 10), "--core=0", "--",
		"qemu-img", "convert", "-p", "-f", "raw", "-O", format,
	}
	if format == formatVMDK {
		args = append(args, "-o", "subformat=streamOptimized")
	}
	args = append(args, "nbd+unix:///?socket="+socket, path)
	cmd := exec.CommandContext(ctx, "prlimit", args...) //nolint:gosec // a tool we name, on a file we named
	cmd.WaitDelay = toolPatience
	cmd.Env = toolEnv()
	var say limitedBuffer
	cmd.Stderr = &say
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("run qemu-img: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run qemu-img: %w", err)
	}
	followProgress(out, progress)
	err = cmd.Wait()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("export image: %w", ctx.Err())
	}
	if left, late := RoomIn(filepath.Dir(path)); late == nil && left < room/100 {
		return noRoom()
	}
	if status, ok := cmd.ProcessState.Sys().(interface{ Signal() unix.Signal }); ok && status.Signal() == unix.SIGXFSZ {
		return noRoom()
	}
	return model.Errorf(model.Unavailable, "the disk could not be exported: %s", lastLine(say.String(), path))
}

func noRoom() error {
	return model.Errorf(model.NoSpace, "there is no room for the export where it is written")
}

// describeFile makes a file durable and notes how large it is and its digest.
func describeFile(ctx context.Context, path string, d *bundle.Disk) error {
	f, err := os.Open(path) //nolint:gosec // a file of ours
	if err != nil {
		return fmt.Errorf("open export: %w", err)
	}
	sum := sha256.New()
	n, err := io.Copy(&counting{ctx: ctx, to: sum, progress: func(model.Bytes) {}}, f)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("read export: %w", err)
	}
	d.FileSize, d.SHA256 = model.Bytes(n), hex.EncodeToString(sum.Sum(nil))
	return nil
}

// OpenBundled unpacks a disk of an archive that has a machine, and looks at it as OpenImage
// does. The caller closes the Image.
func (a *Agent) OpenBundled(ctx context.Context, path string, d bundle.Disk) (_ *Image, err error) {
	room, err := RoomIn(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	if room < d.FileSize {
		return nil, model.Errorf(model.NoSpace, "the node has no room to unpack the machine")
	}
	image := &Image{own: true}
	image.path, err = a.receive(func(f *os.File) error { return bundle.Extract(ctx, path, d, f) })
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, image.Close())
		}
	}()
	switch d.Format {
	case "":
		image.format, err = findFormat(image.path)
	case formatQcow2, formatVMDK, formatRaw, formatVHDX, formatVHD:
		image.format = d.Format
	default:
		err = model.Errorf(model.Invalid, "a disk of the machine has the format %.20q, which is not known here", d.Format)
	}
	if err == nil && image.format == formatOVA {
		err = model.Errorf(model.Invalid, "a disk of the machine is an archive")
	}
	if err != nil {
		return nil, err
	}
	if image.Size, err = inspectImage(ctx, image.path, image.format); err != nil {
		return nil, err
	}
	return image, nil
}
