package spool

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/model"
)

// Piece is after how many bytes the offset of an upload is moved, and the most that is
// sent with a digest.
const Piece = model.Bytes(32 << 20)

const copyBuffer = 256 << 10

// A Chunk is what is sent in one go.
type Chunk struct {
	At  model.Bytes // where it begins: the upload's offset
	Sum []byte      // its SHA-256, to be compared before it counts; nil: not compared
}

// Append reads more of a file and returns the upload as it is then, also with an error:
// what has arrived of a chunk without a digest stays. The code is Conflict if the chunk
// does not begin at the offset or another request sends, and Invalid if it goes beyond
// the file's size or has another digest.
func (s *Spool) Append(ctx context.Context, by model.Actor, id model.UploadID, c Chunk, body io.Reader) (u Upload, err error) {
	e, u, err := s.take(by, id)
	if err != nil {
		return u, err
	}
	defer func() { s.put(e, u) }()
	if c.At != u.Offset {
		return u, model.Errorf(model.Conflict, "the upload goes on at byte %d, not at %d", u.Offset, c.At)
	}
	f, err := os.OpenFile(s.path(id, ".part"), os.O_WRONLY, 0)
	if err != nil {
		return u, fmt.Errorf("open upload: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r := &receiver{ctx: ctx, s: s, f: f, body: body}
	if c.Sum != nil {
		r.hash = sha256.New()
	}
	for {
		n, last, err := r.piece(u)
		if c.Sum != nil {
			if err == nil && !bytes.Equal(r.hash.Sum(nil), c.Sum) {
				err = model.Errorf(model.Invalid, "what arrived does not have the SHA-256 it was sent with")
			}
			if err != nil {
				return u, err
			}
		}
		if n > 0 {
			u.Offset, u.Last = u.Offset+n, time.Now()
			if late := s.commit(f, u); late != nil {
				u.Offset -= n
				return u, late
			}
			s.show(e, u)
		}
		if err != nil || last {
			return u, err
		}
	}
}

// commit makes bytes durable, and then the offset that says so.
func (s *Spool) commit(f *os.File, u Upload) error {
	if err := f.Sync(); err != nil {
		return fmt.Errorf("keep upload: %w", full(err))
	}
	if err := s.save(u); err != nil {
		return fmt.Errorf("keep upload: %w", full(err))
	}
	return nil
}

// show lets others see how far an upload is that the caller has taken.
func (s *Spool) show(e *entry, u Upload) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.Upload = u
}

// full gives the error of a full file system its code.
func full(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return model.Errorf(model.NoSpace, "the node has no room for more of the upload")
	}
	return err
}

type receiver struct {
	ctx  context.Context
	s    *Spool
	f    *os.File
	body io.Reader
	hash hash.Hash // nil: not wanted
}

// piece writes up to Piece bytes at the upload's offset; last says that the body ended.
func (r *receiver) piece(u Upload) (n model.Bytes, last bool, err error) {
	if free, err := r.s.free(); err != nil {
		return 0, false, err
	} else if free < 0 {
		return 0, false, full(unix.ENOSPC)
	}
	want := min(Piece, u.Size-u.Offset)
	var to io.Writer = io.NewOffsetWriter(r.f, int64(u.Offset))
	if r.hash != nil {
		to = io.MultiWriter(to, r.hash)
	}
	got, err := io.CopyBuffer(to, io.LimitReader(r, int64(want)), make([]byte, copyBuffer))
	n = model.Bytes(got)
	switch {
	case err != nil:
		return n, false, fmt.Errorf("receive upload: %w", full(err))
	case n < want:
		return n, true, nil
	case u.Offset+n < u.Size && r.hash == nil:
		return n, false, nil
	}
	// One byte more tells whether the body ends here.
	more, err := io.ReadFull(r, make([]byte, 1))
	switch {
	case more > 0 && r.hash != nil && u.Offset+n < u.Size:
		return n, true, model.Errorf(model.Invalid, "a chunk with a digest has at most %d bytes", Piece)
	case more > 0:
		return n, true, model.Errorf(model.Invalid, "more was sent than the file's %d bytes", u.Size)
	case errors.Is(err, io.EOF):
		return n, true, nil
	}
	return n, true, fmt.Errorf("receive upload: %w", err)
}

// Read reads the body until ctx ends.
func (r *receiver) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err //nolint:wrapcheck // who receives wraps it
	}
	n, err := r.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = model.Errorf(model.Unavailable, "the upload broke off: %w", err)
	}
	return n, err //nolint:wrapcheck // who receives wraps it
}

// Use has do make something of a whole file, at a path that it may only read. With a
// digest the file is read and compared first; progress is told how far that is. The upload
// is forgotten when do is done, and when the file itself is refused (model.Invalid);
// after any other error it can be used again.
func (s *Spool) Use(ctx context.Context, by model.Actor, id model.UploadID, sum string,
	progress func(done model.Bytes), do func(u Upload, path string) error,
) (err error) {
	e, u, err := s.take(by, id)
	if err != nil {
		return err
	}
	spent := false
	defer func() {
		if spent {
			err = errors.Join(err, s.forget(e))
			return
		}
		s.put(e, u)
	}()
	if u.Offset != u.Size {
		return model.Errorf(model.Conflict, "%d of %d bytes were sent", u.Offset, u.Size)
	}
	path := s.path(id, ".part")
	if sum != "" {
		err = compareFile(ctx, path, sum, progress)
	}
	if err == nil {
		err = do(u, path)
	}
	spent = err == nil || model.CodeOf(err) == model.Invalid
	u.Last = time.Now()
	return err
}

// compareFile refuses a file that does not have a SHA-256.
func compareFile(ctx context.Context, path, sum string, progress func(model.Bytes)) error {
	f, err := os.Open(path) //nolint:gosec // a file of ours, named by an identifier
	if err != nil {
		return fmt.Errorf("open upload: %w", err)
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	buf := make([]byte, 4*copyBuffer)
	for done := model.Bytes(0); ; progress(done) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("compare upload: %w", err)
		}
		n, err := f.Read(buf)
		h.Write(buf[:n])
		done += model.Bytes(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("compare upload: %w", err)
		}
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sum {
		return model.Errorf(model.Invalid, "the file that arrived has the SHA-256 %s, not %s", got, sum)
	}
	return nil
}
