package agent

import (
	"archive/tar"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"drystone.example/drystone/backend/model"
)

// The bounds of an OVA, which strangers made.
const (
	ovaEntries    = 64
	ovaDescriptor = 1 << 20 // bytes
)

// An envelope is the part of an OVF descriptor that is in use.
type envelope struct {
	Files []struct {
		ID          string `xml:"id,attr"`
		Href        string `xml:"href,attr"`
		Compression string `xml:"compression,attr"`
	} `xml:"References>File"`
	Disks []struct {
		File string `xml:"fileRef,attr"`
	} `xml:"DiskSection>Disk"`
}

// unpackOVA takes the disk out of an OVA into a file of its own, which the caller
// removes. It takes no more than the archive has: what is compressed, or has holes that
// are not in the archive, is refused, and so nothing grows as it is unpacked.
func unpackOVA(ctx context.Context, path string, to *os.File) error {
	href, err := ovaDisk(path)
	if err != nil {
		return err
	}
	return walkTar(path, func(h *tar.Header, r io.Reader) (bool, error) {
		if h.Name != href {
			return false, nil
		}
		_, err := io.Copy(&counting{ctx: ctx, to: to, progress: func(model.Bytes) {}}, r)
		return true, err
	})
}

// ovaDisk reads the descriptor of an OVA and returns the name of its one disk.
func ovaDisk(path string) (href string, err error) {
	var e envelope
	err = walkTar(path, func(h *tar.Header, r io.Reader) (bool, error) {
		if !strings.HasSuffix(h.Name, ".ovf") {
			return false, nil
		}
		if h.Size > ovaDescriptor {
			return true, model.Errorf(model.Invalid, "the descriptor of the OVA has more than %d bytes", ovaDescriptor)
		}
		if err := xml.NewDecoder(io.LimitReader(r, ovaDescriptor)).Decode(&e); err != nil {
			return true, model.Errorf(model.Invalid, "the descriptor of the OVA cannot be read: %w", err)
		}
		return true, nil
	})
	if err != nil {
		return "", err
	}
	if n := len(e.Disks); n != 1 {
		return "", model.Errorf(model.Invalid,
			"the OVA has %d disks; only one with one disk is taken: unpack it (tar -xf) and upload each disk", n)
	}
	for _, f := range e.Files {
		switch {
		case f.ID != e.Disks[0].File:
		case f.Compression != "" && f.Compression != "identity":
			return "", model.Errorf(model.Invalid, "the disk in the OVA is compressed; unpack it first")
		default:
			return f.Href, nil
		}
	}
	return "", model.Errorf(model.Invalid, "the descriptor of the OVA does not say where its disk is")
}

// walkTar calls each with the files of an archive until one is the one looked for.
func walkTar(path string, each func(*tar.Header, io.Reader) (found bool, err error)) error {
	f, err := os.Open(path) //nolint:gosec // a file of ours
	if err != nil {
		return fmt.Errorf("open image: %w", err)
	}
	defer func() { _ = f.Close() }()
	t := tar.NewReader(f)
	for range ovaEntries {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return model.Errorf(model.Invalid, "the OVA cannot be read: %w", err)
		}
		if h.Typeflag != tar.TypeReg || sparse(h) {
			return model.Errorf(model.Invalid, "the OVA has %q, which is no plain file", h.Name)
		}
		found, err := each(h, t)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = model.Errorf(model.Invalid, "the OVA was cut short")
		}
		if found || err != nil {
			return err
		}
	}
	return model.Errorf(model.Invalid, "the OVA lacks its descriptor or its disk")
}

// sparse reports whether a file would be larger than what the archive has of it.
func sparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}
