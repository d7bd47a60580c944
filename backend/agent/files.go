package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"drystone.example/drystone/backend/model"
)

// maxFile bounds a boot file.
const maxFile = model.Bytes(256 << 20)

// fileProto is the stream that nodes fetch boot files from each other by: the
// digest in hex goes out, the file's bytes come back, and the end is the end.
const fileProto = "file"

// Files keeps small files (kernels, initial RAM disks) by their digest in one
// folder of the node. A file there is whole and right, or is not there.
type Files struct{ dir string }

// NewFiles keeps files in dir, which is made when first needed.
func NewFiles(dir string) Files { return Files{dir: dir} }

func validDigest(digest string) error {
	if b, err := hex.DecodeString(digest); err != nil || len(b) != sha256.Size || hex.EncodeToString(b) != digest {
		return model.Errorf(model.Invalid, "a file is named by its SHA-256 in lower-case hex")
	}
	return nil
}

// Path returns where a file is, or model.NotFound.
func (f Files) Path(digest string) (string, error) {
	if err := validDigest(digest); err != nil {
		return "", err
	}
	path := filepath.Join(f.dir, digest)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return "", model.Errorf(model.NotFound, "file %.12s is not on this node", digest)
	} else if err != nil {
		return "", fmt.Errorf("look for file %.12s: %w", digest, err)
	}
	return path, nil
}

// Put reads a file and keeps it if it has the digest; it returns its size.
func (f Files) Put(digest string, body io.Reader) (size model.Bytes, err error) {
	if err := validDigest(digest); err != nil {
		return 0, err
	}
	if err := os.MkdirAll(f.dir, 0o755); err != nil { //nolint:gosec // QEMU's user reads here
		return 0, fmt.Errorf("make folder of files: %w", err)
	}
	tmp, err := os.CreateTemp(f.dir, ".new-*")
	if err != nil {
		return 0, fmt.Errorf("make file: %w", err)
	}
	defer func() {
		err = errors.Join(err, ignoreClosed(tmp.Close()))
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(tmp, sum), io.LimitReader(body, int64(maxFile)+1))
	switch {
	case err != nil:
		return 0, fmt.Errorf("receive file: %w", err)
	case model.Bytes(n) > maxFile:
		return 0, model.Errorf(model.Invalid, "a file has at most %d bytes", maxFile)
	case hex.EncodeToString(sum.Sum(nil)) != digest:
		return 0, model.Errorf(model.Invalid, "the file does not have the SHA-256 it was announced with")
	}
	if err := errors.Join(tmp.Chmod(0o644), tmp.Sync(), tmp.Close()); err != nil {
		return 0, fmt.Errorf("keep file: %w", err)
	}
	if err := os.Rename(tmp.Name(), filepath.Join(f.dir, digest)); err != nil {
		return 0, fmt.Errorf("keep file: %w", err)
	}
	if err := f.sync(); err != nil {
		return 0, fmt.Errorf("keep file: %w", err)
	}
	return model.Bytes(n), nil
}

// sync makes the names of the files durable.
func (f Files) sync() error {
	dir, err := os.Open(f.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// serve answers one peer's request for a file.
func (f Files) serve(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return fmt.Errorf("bound answer: %w", err)
	}
	digest := make([]byte, sha256.Size*2)
	if _, err := io.ReadFull(conn, digest); err != nil {
		return fmt.Errorf("read name of file: %w", err)
	}
	path, err := f.Path(string(digest))
	if err != nil {
		return err
	}
	file, err := os.Open(path) //nolint:gosec // named by a digest, in our own folder
	if err != nil {
		return fmt.Errorf("open file: %w", err)
	}
	defer func() { _ = file.Close() }()
	if _, err := io.Copy(conn, file); err != nil {
		return fmt.Errorf("send file: %w", err)
	}
	return nil
}

// fetch brings a file from the first peer that has it, unless it is here.
func (a *Agent) fetch(ctx context.Context, ref model.FileRef) (string, error) {
	if path, err := a.files.Path(ref.SHA256); model.CodeOf(err) != model.NotFound {
		return path, err
	}
	for _, n := range a.cfg.Meta.Local().Nodes() {
		if n.ID == a.cfg.Self {
			continue
		}
		if err := a.fetchFrom(ctx, n.ID, ref.SHA256); err == nil {
			return a.files.Path(ref.SHA256)
		}
	}
	return "", model.Errorf(model.NotFound, "the file %q (%.12s) is on no node that can be reached", ref.Name, ref.SHA256)
}

func (a *Agent) fetchFrom(ctx context.Context, node model.NodeID, digest string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	conn, err := a.cfg.Wire.Dial(ctx, node, fileProto)
	if err != nil {
		return fmt.Errorf("fetch file from %s: %w", node, err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return fmt.Errorf("bound fetch: %w", err)
		}
	}
	if _, err := io.WriteString(conn, digest); err != nil {
		return fmt.Errorf("ask %s for file: %w", node, err)
	}
	_, err = a.files.Put(digest, conn)
	return err
}

// callFile tells a node that there is a file it should have.
const callFile = "file.want"

// PutFile keeps a file here and lets the nodes that are up fetch it, so that a
// machine can start on any of them though this one be lost. A node that misses
// it now fetches it when it needs it.
func (a *Agent) PutFile(ctx context.Context, digest string, body io.Reader) (model.Bytes, error) {
	size, err := a.files.Put(digest, body)
	if err != nil {
		return 0, err
	}
	var wait sync.WaitGroup
	for _, n := range a.cfg.Meta.Local().Nodes() {
		if n.ID == a.cfg.Self || !a.cfg.Up(n.ID) {
			continue
		}
		wait.Go(func() {
			if err := a.cfg.Wire.Call(ctx, n.ID, callFile, model.FileRef{SHA256: digest}, nil); err != nil {
				a.log.Debug("file was not handed on", "node", n.ID, "err", err)
			}
		})
	}
	wait.Wait()
	return size, nil
}

func (a *Agent) handleFile(ctx context.Context, peer model.NodeID, body json.RawMessage) (any, error) {
	var ref model.FileRef
	if err := json.Unmarshal(body, &ref); err != nil {
		return nil, model.Errorf(model.Invalid, "read request: %w", err)
	}
	if _, err := a.files.Path(ref.SHA256); model.CodeOf(err) != model.NotFound {
		return struct{}{}, err
	}
	return struct{}{}, a.fetchFrom(ctx, peer, ref.SHA256)
}
