package pki

import (
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"

	"drystone.example/drystone/backend/model"
)

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// blocksOf reads all blocks of a PEM text and refuses anything else in it.
func blocksOf(b []byte) ([]*pem.Block, error) {
	var out []*pem.Block
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			break
		}
		out, b = append(out, block), rest
	}
	if len(out) == 0 {
		return nil, model.Errorf(model.Invalid, "there is no PEM block in it")
	}
	return out, nil
}

// onePEM returns the content of the only block, which is of the given kind.
func onePEM(b []byte, kind string) ([]byte, error) {
	blocks, err := blocksOf(b)
	if err != nil {
		return nil, err
	}
	if len(blocks) != 1 || blocks[0].Type != kind {
		return nil, model.Errorf(model.Invalid, "it is not one block of %s", kind)
	}
	return blocks[0].Bytes, nil
}

// writePrivate replaces a file in one step: after a crash it is the old one or
// the new one, whole, and only its owner may read it.
func writePrivate(path string, b []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make directory for keys: %w", err)
	}
	f, err := os.CreateTemp(dir, ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write private file: %w", err)
	}
	name := f.Name()
	defer func() {
		if err != nil {
			_ = os.Remove(name)
		}
	}()
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(name, path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("write private file: %w", err)
	}
	return nil
}
