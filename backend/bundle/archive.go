package bundle

import (
	"archive/tar"
	"context"
	"crypto/sha1" //nolint:gosec // what older OVAs are compared by, against accidents
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"drystone.example/drystone/backend/model"
)

// maxEntries bounds the files in an archive.
const maxEntries = 64

// Open reads the description in an archive: our own, or the first OVF descriptor.
func Open(path string) (m Machine, err error) {
	var manifest []byte
	found := false
	err = walk(path, func(h *tar.Header, r io.Reader) (bool, error) {
		var err error
		switch {
		case h.Name == File && !found:
			var text []byte
			if text, err = read(h, r); err == nil {
				m, err = Unmarshal(text)
			}
			found = true
			return true, err
		case strings.HasSuffix(h.Name, ".ovf") && !found:
			if h.Size > maxDescription {
				return true, tooLarge(h)
			}
			m, err = unmarshalOVF(r)
			found = true
		case strings.HasSuffix(h.Name, ".mf"):
			manifest, err = read(h, r)
		}
		return false, err
	})
	switch {
	case err != nil:
		return m, err
	case !found:
		return m, model.Errorf(model.Invalid, "the archive has no description of a machine, or was cut short")
	}
	m.takeManifest(manifest)
	return m, nil
}

func tooLarge(h *tar.Header) error {
	return model.Errorf(model.Invalid, "%.100q in the archive has more than %d bytes", h.Name, maxDescription)
}

func read(h *tar.Header, r io.Reader) ([]byte, error) {
	if h.Size > maxDescription {
		return nil, tooLarge(h)
	}
	return io.ReadAll(r) //nolint:wrapcheck // walk says what it means
}

var manifestLine = regexp.MustCompile(`(?m)^(SHA1|SHA256)\s?\((.+)\)\s*=\s*([0-9a-fA-F]+)\s*$`)

// takeManifest notes the digests that an OVA's manifest has of the disks.
func (m *Machine) takeManifest(text []byte) {
	for _, line := range manifestLine.FindAllSubmatch(text, maxEntries) {
		for i := range m.Disks {
			if d := &m.Disks[i]; d.File == string(line[2]) && string(line[1]) == "SHA256" {
				d.SHA256 = strings.ToLower(string(line[3]))
			} else if d.File == string(line[2]) {
				d.sha1 = strings.ToLower(string(line[3]))
			}
		}
	}
}

// Extract writes a disk's file to a place. It takes no more than the archive has: what has
// holes that are not in the archive is refused, and so nothing grows as it is unpacked. What
// has not its digest is refused too, once it is written.
func Extract(ctx context.Context, path string, d Disk, to io.Writer) error {
	there := false
	err := walk(path, func(h *tar.Header, r io.Reader) (bool, error) {
		if h.Name != d.File {
			return false, nil
		}
		there = true
		var sum hash.Hash
		want := d.SHA256
		switch {
		case d.SHA256 != "":
			sum = sha256.New()
		case d.sha1 != "":
			sum, want = sha1.New(), d.sha1 //nolint:gosec // see above
		}
		if sum != nil {
			to = io.MultiWriter(to, sum)
		}
		if _, err := io.Copy(to, &stopping{ctx, r}); err != nil {
			return true, fmt.Errorf("unpack: %w", err)
		}
		if sum != nil && hex.EncodeToString(sum.Sum(nil)) != want {
			return true, model.Errorf(model.Invalid, "the file %.100q in the archive is damaged: it has another digest than the archive says", d.File)
		}
		return true, nil
	})
	if err == nil && !there {
		return model.Errorf(model.Invalid, "the archive lacks the disk %.100q, or was cut short", d.File)
	}
	return err
}

// stopping reads until a context ends.
type stopping struct {
	ctx context.Context
	r   io.Reader
}

func (s *stopping) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err //nolint:wrapcheck // it is the context
	}
	return s.r.Read(p) //nolint:wrapcheck // it is the reader
}

// walk calls each with the files of an archive until one is the one looked for, or the
// archive ends.
func walk(path string, each func(*tar.Header, io.Reader) (found bool, err error)) error {
	f, err := os.Open(path) //nolint:gosec // a file of ours
	if err != nil {
		return fmt.Errorf("open archive: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	t := tar.NewReader(f)
	for range maxEntries {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return model.Errorf(model.Invalid, "the archive cannot be read: %w", err)
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		if h.Typeflag != tar.TypeReg || sparse(h) {
			return model.Errorf(model.Invalid, "the archive has %.100q, which is no plain file", h.Name)
		}
		h.Name = strings.TrimPrefix(h.Name, "./")
		found, err := each(h, t)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = model.Errorf(model.Invalid, "the archive was cut short")
		}
		if found || err != nil {
			return err
		}
	}
	return model.Errorf(model.Invalid, "the archive has more than %d files", maxEntries)
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

// Pack writes files of a folder, one behind the other, as an archive. It takes each away
// when it is written, so that no more room is needed than for all and one of them.
func Pack(ctx context.Context, to io.Writer, dir string, files []string) error {
	w := tar.NewWriter(to)
	for _, name := range files {
		if err := pack(ctx, w, filepath.Join(dir, name), name); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("end archive: %w", err)
	}
	return nil
}

func pack(ctx context.Context, w *tar.Writer, path, name string) error {
	f, err := os.Open(path) //nolint:gosec // a file of ours
	if err != nil {
		return fmt.Errorf("open what is archived: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("look at what is archived: %w", err)
	}
	h := &tar.Header{Name: name, Mode: 0o644, Size: info.Size(), ModTime: info.ModTime(), Format: tar.FormatGNU}
	if info.Size() < 8<<30 {
		h.Format = tar.FormatUSTAR // which every reader of OVAs knows
	}
	if err := w.WriteHeader(h); err != nil {
		return fmt.Errorf("archive %s: %w", name, err)
	}
	if _, err := io.Copy(w, &stopping{ctx, f}); err != nil {
		return fmt.Errorf("archive %s: %w", name, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove what is archived: %w", err)
	}
	return nil
}
