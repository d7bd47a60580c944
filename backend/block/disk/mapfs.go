package disk

import (
	"io/fs"
	"os"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A mapFS stands between pebble and the file system, and freezes with the first
// change that fails: the failure is told to the disk, which latches, and nothing is
// changed any more, as if the power had been cut then. Pebble is told that all went
// well. It would otherwise repeat what failed, or end the process; and the next Open
// finds what a power cut leaves, which it can deal with.
type mapFS struct {
	vfs.FS
	failed func(error)

	mu     sync.Mutex
	frozen bool
}

// try does a change unless the file system is frozen, and freezes it if it fails.
// It reports whether the change was done.
func (f *mapFS) try(change func() error) bool {
	f.mu.Lock()
	frozen := f.frozen
	f.mu.Unlock()
	if frozen {
		return false
	}
	err := change()
	if err == nil {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.frozen {
		f.frozen = true
		f.failed(err) // before anything else is told that it went well
	}
	return false
}

// file does a change that makes a file; frozen, it makes one that keeps nothing.
func (f *mapFS) file(open func() (vfs.File, error)) (vfs.File, error) {
	var got vfs.File
	done := f.try(func() (err error) {
		got, err = open()
		return err
	})
	if !done {
		return &mapFile{File: vfs.NewMemFile(nil), fs: f, void: true}, nil
	}
	return &mapFile{File: got, fs: f}, nil
}

func (f *mapFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.file(func() (vfs.File, error) { return f.FS.Create(name, c) })
}

func (f *mapFS) OpenReadWrite(name string, c vfs.DiskWriteCategory,
	o ...vfs.OpenOption,
) (vfs.File, error) {
	return f.file(func() (vfs.File, error) { return f.FS.OpenReadWrite(name, c, o...) })
}

func (f *mapFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.file(func() (vfs.File, error) { return f.FS.ReuseForWrite(from, to, c) })
}

// OpenDir opens a directory to sync it; what it needs is there, so it may fail.
func (f *mapFS) OpenDir(name string) (vfs.File, error) {
	dir, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &mapFile{File: dir, fs: f}, nil
}

func (f *mapFS) Link(from, to string) error {
	f.try(func() error { return f.FS.Link(from, to) })
	return nil
}

func (f *mapFS) Rename(from, to string) error {
	f.try(func() error { return f.FS.Rename(from, to) })
	return nil
}

func (f *mapFS) MkdirAll(dir string, perm os.FileMode) error {
	f.try(func() error { return f.FS.MkdirAll(dir, perm) })
	return nil
}

// Remove may fail: what is left over is only space.
func (f *mapFS) Remove(name string) (err error) {
	f.try(func() error {
		err = f.FS.Remove(name)
		return nil
	})
	return err
}

// RemoveAll is not asked for by pebble.
func (f *mapFS) RemoveAll(string) error { return fs.ErrInvalid }

func (f *mapFS) Unwrap() vfs.FS { return f.FS }

// A mapFile is a file of a mapFS.
type mapFile struct {
	vfs.File
	fs   *mapFS
	void bool // keeps nothing
}

func (f *mapFile) change(do func() error) {
	if !f.void {
		f.fs.try(do)
	}
}

func (f *mapFile) Write(b []byte) (int, error) {
	f.change(func() error {
		_, err := f.File.Write(b)
		return err
	})
	return len(b), nil
}

func (f *mapFile) WriteAt(b []byte, off int64) (int, error) {
	f.change(func() error {
		_, err := f.File.WriteAt(b, off)
		return err
	})
	return len(b), nil
}

func (f *mapFile) Preallocate(off, n int64) error {
	f.change(func() error { return f.File.Preallocate(off, n) })
	return nil
}

func (f *mapFile) Sync() error {
	f.change(f.File.Sync)
	return nil
}

func (f *mapFile) SyncData() error {
	f.change(f.File.SyncData)
	return nil
}

func (f *mapFile) SyncTo(n int64) (full bool, err error) {
	f.change(func() (err error) {
		full, err = f.File.SyncTo(n)
		return err
	})
	return full, nil
}
