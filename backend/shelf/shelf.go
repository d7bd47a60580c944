// Package shelf keeps files that a node made for people until they have fetched them.
//
// What is on it is bounded: MaxFiles on a node, each until Lifetime after it was made or
// read last. Nothing outlives the node's process: what a former one left is removed.
package shelf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"drystone.example/drystone/backend/model"
)

// The bounds of a shelf.
const (
	MaxFiles = 4
	Lifetime = time.Hour

	expireEvery = time.Minute
)

// A File is on the shelf.
type File struct {
	ID   model.DownloadID
	Name string
	Size model.Bytes
	Last time.Time // when it was made or read

	by      model.UserID
	user    string
	readers int
	made    bool
}

// Expires is when the file is removed unless it is read.
func (f File) Expires() time.Time { return f.Last.Add(Lifetime) }

// A Shelf is the files of one node. It is safe for concurrent use.
type Shelf struct {
	dir string
	log *slog.Logger

	mu   sync.Mutex // guards the rest; nothing blocks under it
	open bool
	all  map[model.DownloadID]*File
}

// New makes a shelf of a folder, which is made when first needed.
func New(dir string, log *slog.Logger) *Shelf {
	return &Shelf{dir: dir, log: log, all: map[model.DownloadID]*File{}}
}

// Run removes what was left, and then what nobody fetches, until ctx ends.
func (s *Shelf) Run(ctx context.Context) {
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	open, said := false, ""
	for {
		var err error
		if !open {
			err = os.RemoveAll(s.dir)
			open = err == nil
			s.mu.Lock()
			s.open = open
			s.mu.Unlock()
		}
		if err = errors.Join(err, s.expire()); err != nil && err.Error() != said {
			said = err.Error()
			s.log.Warn("exports are not looked after", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Shelf) expire() error {
	var old []model.DownloadID
	s.mu.Lock()
	for id, f := range s.all {
		if f.made && f.readers == 0 && !time.Now().Before(f.Expires()) {
			old = append(old, id)
			delete(s.all, id)
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, id := range old {
		errs = append(errs, os.RemoveAll(s.path(id)))
	}
	return errors.Join(errs...)
}

func (s *Shelf) path(id model.DownloadID) string { return filepath.Join(s.dir, id.String()) }

// Make has do make a file in an empty folder and returns it. If do fails nothing is kept.
// The code is Conflict while there are too many.
func (s *Shelf) Make(by model.Actor, do func(dir string) (path string, err error)) (_ File, err error) {
	f := &File{ID: model.NewID[model.DownloadID](), by: by.UserID, user: by.User}
	if err := s.admit(f); err != nil {
		return File{}, err
	}
	kept := false // not after a panic either
	defer func() {
		if !kept {
			err = errors.Join(err, s.drop(f.ID))
		}
	}()
	dir := s.path(f.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return File{}, fmt.Errorf("make folder of an export: %w", err)
	}
	path, err := do(dir)
	if err != nil {
		return File{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return File{}, fmt.Errorf("look at export: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f.Name, f.Size, f.Last, f.made = filepath.Base(path), model.Bytes(info.Size()), time.Now(), true
	kept = true
	return *f, nil
}

func (s *Shelf) admit(f *File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.open:
		return model.Errorf(model.Unavailable, "the node is starting; try again")
	case len(s.all) >= MaxFiles:
		return model.Errorf(model.Conflict, "there are %d exports on this node that nobody has fetched or that are being made; try again later", len(s.all))
	}
	s.all[f.ID] = f
	return nil
}

// drop removes a file that nobody can read any more.
func (s *Shelf) drop(id model.DownloadID) error {
	s.mu.Lock()
	delete(s.all, id)
	s.mu.Unlock()
	return os.RemoveAll(s.path(id))
}

// find looks a file up. The lock is held.
func (s *Shelf) find(by model.Actor, id model.DownloadID) (*File, error) {
	f := s.all[id]
	if f == nil || !f.made || (f.by != by.UserID || f.user != by.User) && !by.Role.Includes(model.Owner) {
		return nil, model.Errorf(model.NotFound, "there is no export %s on this node; it is kept for an hour, where it was made", id)
	}
	return f, nil
}

// Open opens a file to be read; the caller calls done when it is. The code is NotFound also
// for somebody else's.
func (s *Shelf) Open(by model.Actor, id model.DownloadID) (_ File, file *os.File, done func(), err error) {
	s.mu.Lock()
	f, err := s.find(by, id)
	if err != nil {
		s.mu.Unlock()
		return File{}, nil, nil, err
	}
	f.readers++
	now := *f
	s.mu.Unlock()
	leave := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		f.readers--
		f.Last = time.Now()
	}
	if file, err = os.Open(filepath.Join(s.path(id), now.Name)); err != nil {
		leave()
		return File{}, nil, nil, fmt.Errorf("open export: %w", err)
	}
	return now, file, func() { _ = file.Close(); leave() }, nil // it was only read
}

// Remove takes a file away; who reads it reads it to its end.
func (s *Shelf) Remove(by model.Actor, id model.DownloadID) error {
	s.mu.Lock()
	_, err := s.find(by, id)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return s.drop(id)
}
