package agent

import (
	"context"
	"os"

	"drystone.example/drystone/backend/bundle"
	"drystone.example/drystone/backend/model"
)

// unpackOVA takes the disk out of an OVA into a file of its own, which the caller
// removes.
func unpackOVA(ctx context.Context, path string, to *os.File) error {
	m, err := bundle.Open(path)
	if err != nil {
		return err
	}
	if n := len(m.Disks); n != 1 {
		return model.Errorf(model.Invalid, "the OVA has %d disks; an image is of one: import it as a machine", n)
	}
	return bundle.Extract(ctx, path, m.Disks[0], to)
}
