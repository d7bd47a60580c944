// Package unixsock opens listening UNIX sockets for clients that take the
// existence of the path for readiness: the path appears only when it has its
// owner and mode and a connection to it will be accepted.
package unixsock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"drystone.example/drystone/backend/model"
)

// PathMax is the longest path of a socket, in bytes: the kernel's 108 with its
// final zero.
const PathMax = 107

// An Owner is who may connect, beside root. The zero Owner is the user of this
// process, alone.
type Owner struct {
	UID, GID int         // zero leaves it as it is
	Mode     fs.FileMode // zero means 0600
}

// A Listener is a listening socket and its path.
type Listener struct {
	*net.UnixListener

	path string
	made os.FileInfo

	close, unpublish sync.Once
	err, left        error // of the two
}

var serial atomic.Uint64

// Listen binds a socket under a name of its own in path's directory, gives it
// to owner, and renames it to path. What was at path, if it was a socket, is
// replaced; anything else there is refused.
func Listen(ctx context.Context, path string, owner Owner) (*Listener, error) {
	if err := check(path); err != nil {
		return nil, err
	}
	draft := filepath.Join(filepath.Dir(path), ".s"+strconv.Itoa(os.Getpid())+"."+
		strconv.FormatUint(serial.Add(1), 36))
	if len(draft) > PathMax {
		return nil, tooLong(draft)
	}
	if err := os.Remove(draft); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", draft)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	ul, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("listen on %s: not a UNIX socket", path), l.Close())
	}
	ul.SetUnlinkOnClose(false)
	made, err := publish(draft, path, owner)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), ul.Close(),
			os.Remove(draft))
	}
	return &Listener{UnixListener: ul, path: path, made: made}, nil
}

// Path returns where the socket was put.
func (l *Listener) Path() string { return l.path }

// Unpublish removes the path, unless somebody has put another socket there
// since. Who connected before can still be accepted.
func (l *Listener) Unpublish() error {
	l.unpublish.Do(func() {
		if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.made) {
			l.left = os.Remove(l.path)
		}
	})
	return l.left
}

// Close stops listening and removes the path. It is safe to call twice.
func (l *Listener) Close() error {
	l.close.Do(func() { l.err = l.UnixListener.Close() })
	return errors.Join(l.err, l.Unpublish())
}

func check(path string) error {
	if len(path) > PathMax {
		return tooLong(path)
	}
	switch now, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("listen on %s: %w", path, err)
	case now.Mode().Type() != fs.ModeSocket:
		return model.Errorf(model.Conflict, "%s is there and is not a socket", path)
	}
	return nil
}

func tooLong(path string) error {
	return model.Errorf(model.Invalid, "the socket path %s has %d bytes; at most %d are possible",
		path, len(path), PathMax)
}

func publish(draft, path string, owner Owner) (os.FileInfo, error) {
	mode := owner.Mode
	if mode == 0 {
		mode = 0o600
	}
	if err := os.Chmod(draft, mode); err != nil {
		return nil, err
	}
	if owner.UID != 0 || owner.GID != 0 {
		if err := os.Chown(draft, keepZero(owner.UID), keepZero(owner.GID)); err != nil {
			return nil, err
		}
	}
	made, err := os.Lstat(draft)
	if err != nil {
		return nil, err
	}
	return made, os.Rename(draft, path)
}

// keepZero turns "as it is" into what chown takes for it.
func keepZero(id int) int {
	if id == 0 {
		return -1
	}
	return id
}
