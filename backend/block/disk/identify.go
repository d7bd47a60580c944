package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"drystone.example/drystone/backend/model"
)

// An Identity is whose disk a file or device is.
type Identity struct {
	Cluster model.ClusterID
	Disk    model.DiskID
}

// Identify reads the superblock at path, without locking or changing anything: a
// disk that is open can be identified too. The code is model.NotFound where there is
// no disk, and model.Corrupt where there is a damaged one.
func Identify(path string) (Identity, error) {
	f, err := os.Open(path) //nolint:gosec // a device, or what the operator names
	if errors.Is(err, fs.ErrNotExist) {
		return Identity{}, model.Errorf(model.NotFound, "there is no disk here: %w", err)
	}
	if err != nil {
		return Identity{}, fmt.Errorf("open disk: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	var errs []error
	for _, off := range superOffsets {
		b := make([]byte, superSize)
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
		if err == nil {
			return Identity{Cluster: s.cluster, Disk: s.disk}, nil
		}
		errs = append(errs, err)
	}
	// A damaged copy says more than one that is not there.
	for _, err := range errs {
		if model.CodeOf(err) != model.NotFound {
			return Identity{}, err
		}
	}
	return Identity{}, errs[0]
}
