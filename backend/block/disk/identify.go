package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

// An Identity is whose disk a file or device is.
type Identity struct {
	Cluster model.ClusterID
	Disk    model.DiskID

	// Journal is the number of the batch that the journal begins with. It only grows,
	// and grows whenever a disk that was written to is opened or closed: an image of a
	// disk that was not has a lower one.
	Journal uint64
}

// Identify reads the superblock at path, without locking or changing anything: a
// disk that is open can be identified too. The code is model.NotFound where there is
// no disk, and model.Corrupt where there is a damaged one.
//
// It reads past the kernel's cache, where that can be: another machine may have
// written to the device since it was read here.
func Identify(path string) (Identity, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0) //nolint:gosec // a device, or what the operator names
	if errors.Is(err, unix.EINVAL) {
		f, err = os.Open(path) //nolint:gosec // as above
	}
	if errors.Is(err, fs.ErrNotExist) {
		return Identity{}, model.Errorf(model.NotFound, "there is no disk here: %w", err)
	}
	if err != nil {
		return Identity{}, fmt.Errorf("open disk: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	return identify(f)
}

func identify(f io.ReaderAt) (Identity, error) {
	var errs []error
	var best superblock
	for _, off := range superOffsets {
		b := iobuf.Aligned(superSize)
		_, err := f.ReadAt(b, off)
		var s superblock
		switch {
		case errors.Is(err, io.EOF):
			err = model.Errorf(model.NotFound, "there is no disk of this kind here")
		case err != nil:
			err = fmt.Errorf("read superblock: %w", err)
		default:
			s, err = decodeSuperblock(b)
		}
		switch {
		case err != nil:
			errs = append(errs, err)
		case best.disk == 0 || s.sequence > best.sequence:
			best = s
		}
	}
	if best.disk != 0 {
		return Identity{Cluster: best.cluster, Disk: best.disk, Journal: best.tail.lsn}, nil
	}
	// A damaged copy says more than one that is not there.
	for _, err := range errs {
		if model.CodeOf(err) != model.NotFound {
			return Identity{}, err
		}
	}
	return Identity{}, errs[0]
}
