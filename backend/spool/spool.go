// Package spool keeps files that people send to a node piece by piece until they are
// whole, so that an upload that was interrupted goes on where it was: by the network, by
// who sends it, or by the node itself.
//
// Invariant: what lies before an upload's offset is on the disk and is what was sent;
// what lies beyond is never used. So the offset is moved only after the bytes were
// synced, and a file that is shorter than its offset is cut back to what there is.
//
// What is sent is bounded: MaxPerUser uploads of one person, MaxUploads on a node, and
// all of them, as large as they will be, together with what is to stay free on the file
// system. One that nobody sends to is forgotten after Lifetime.
package spool

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"drystone.example/drystone/backend/model"
)

// The bounds of uploads.
const (
	MaxPerUser = 4
	MaxUploads = 16
	MaxSize    = model.Bytes(16 << 40)
	Lifetime   = 24 * time.Hour // since something was sent last

	// What stays free on the file system, for the node keeps its record there too.
	leastFree      = model.Bytes(1 << 30)
	leastFreeShare = 20 // 1 of so many

	maxText     = 255 // bytes of a file's name or mark
	expireEvery = 10 * time.Minute
)

// A Spec is a file that is to be sent.
type Spec struct {
	Name   string      `json:"name"` // of what it shall become
	File   string      `json:"file"` // its name where it comes from, for people
	Mark   string      `json:"mark"` // by which who sends it knows it again
	Format string      `json:"format"`
	Copies int         `json:"copies"`
	Size   model.Bytes `json:"size"`
}

// An Upload is a file that is being sent.
type Upload struct {
	Spec

	ID     model.UploadID `json:"id"`
	User   string         `json:"user"`
	UserID model.UserID   `json:"user_id,omitzero"`
	Offset model.Bytes    `json:"offset"` // what was received and is on the disk
	Begun  time.Time      `json:"begun"`
	Last   time.Time      `json:"last"` // when something was received
}

// Expires is when the upload is forgotten unless something more is sent.
func (u Upload) Expires() time.Time { return u.Last.Add(Lifetime) }

// A Spool is the uploads of one node. It is safe for concurrent use.
type Spool struct {
	dir string
	log *slog.Logger

	mu   sync.Mutex // guards the rest; nothing blocks under it
	open bool
	all  map[model.UploadID]*entry
}

type entry struct {
	Upload

	busy bool // somebody sends, uses or removes it; then only they change it
}

// New makes a spool of a folder, which is made when first needed.
func New(dir string, log *slog.Logger) *Spool {
	return &Spool{dir: dir, log: log, all: map[model.UploadID]*entry{}}
}

// Run finds what was there before and forgets what nobody sends to, until ctx ends.
// Before it has begun every call answers model.Unavailable.
func (s *Spool) Run(ctx context.Context) {
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	loaded, said := false, ""
	for {
		var err error
		if !loaded {
			err = s.load()
			loaded = err == nil
		}
		if err = errors.Join(err, s.expire()); err != nil && err.Error() != said {
			said = err.Error()
			s.log.Warn("uploads are not looked after", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// load reads the folder; what belongs to no upload is removed.
func (s *Spool) load() error {
	files, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for uploads: %w", err)
	}
	found := map[model.UploadID]*entry{}
	for _, f := range files {
		if u, ok := s.read(f.Name()); ok {
			found[u.ID] = &entry{Upload: u}
		}
	}
	for _, f := range files {
		id, err := model.ParseID[model.UploadID](strings.TrimSuffix(f.Name(), filepath.Ext(f.Name())))
		if err == nil && found[id] != nil && filepath.Ext(f.Name()) != ".new" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(s.dir, f.Name())); err != nil {
			return fmt.Errorf("remove what is left of an upload: %w", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all, s.open = found, true
	return nil
}

// read reads an upload's description, and cuts its offset back to what there is.
func (s *Spool) read(name string) (u Upload, ok bool) {
	base, is := strings.CutSuffix(name, ".json")
	id, err := model.ParseID[model.UploadID](base)
	if !is || err != nil {
		return u, false
	}
	text, err := os.ReadFile(s.path(id, ".json"))
	if err != nil || json.Unmarshal(text, &u) != nil || u.ID != id || u.Offset < 0 || u.Size <= 0 {
		return u, false
	}
	info, err := os.Lstat(s.path(id, ".part"))
	if err != nil || !info.Mode().IsRegular() {
		return u, false
	}
	u.Offset = min(u.Offset, model.Bytes(info.Size()))
	return u, true
}

func (s *Spool) path(id model.UploadID, end string) string {
	return filepath.Join(s.dir, id.String()+end)
}

// expire forgets what nobody has sent to for too long.
func (s *Spool) expire() error {
	var old []*entry
	s.mu.Lock()
	for _, e := range s.all {
		if !e.busy && !time.Now().Before(e.Expires()) {
			e.busy = true
			old = append(old, e)
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, e := range old {
		errs = append(errs, s.forget(e))
	}
	return errors.Join(errs...)
}

// Begin makes room for a file. The code is NoSpace if the node has none, and Conflict if
// there are too many uploads already.
func (s *Spool) Begin(by model.Actor, spec Spec) (Upload, error) {
	if err := spec.validate(); err != nil {
		return Upload{}, err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return Upload{}, fmt.Errorf("make folder of uploads: %w", err)
	}
	free, err := s.free()
	if err != nil {
		return Upload{}, err
	}
	now := time.Now()
	e := &entry{busy: true, Upload: Upload{
		Spec: spec, ID: model.NewID[model.UploadID](), User: by.User, UserID: by.UserID, Begun: now, Last: now,
	}}
	if err := s.admit(e, free); err != nil {
		return Upload{}, err
	}
	f, err := os.OpenFile(s.path(e.ID, ".part"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		err = errors.Join(f.Sync(), f.Close(), s.save(e.Upload))
	}
	if err != nil {
		return Upload{}, errors.Join(fmt.Errorf("begin upload: %w", err), s.forget(e))
	}
	s.put(e, e.Upload)
	return e.Upload, nil
}

func (spec Spec) validate() error {
	if err := model.ValidateName("image", spec.Name); err != nil {
		return err
	}
	switch {
	case spec.Size <= 0:
		return model.Errorf(model.Invalid, "a file of %d bytes is not uploaded", spec.Size)
	case spec.Size > MaxSize:
		return model.Errorf(model.Invalid, "a file has at most %d bytes, not %d", MaxSize, spec.Size)
	case len(spec.File) > maxText, len(spec.Mark) > maxText:
		return model.Errorf(model.Invalid, "the name and the mark of a file have at most %d bytes", maxText)
	}
	return nil
}

// free is what uploads may still take on the file system.
func (s *Spool) free() (model.Bytes, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return 0, fmt.Errorf("look how full the file system of uploads is: %w", err)
	}
	total := model.Bytes(st.Blocks) * model.Bytes(st.Bsize)
	return model.Bytes(st.Bavail)*model.Bytes(st.Bsize) - max(leastFree, total/leastFreeShare), nil
}

// admit enters an upload if it is within the bounds.
func (s *Spool) admit(e *entry, free model.Bytes) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		return starting()
	}
	mine := 0
	for _, o := range s.all {
		free -= o.Size - o.Offset
		if o.User == e.User && o.UserID == e.UserID {
			mine++
		}
	}
	switch {
	case mine >= MaxPerUser:
		return model.Errorf(model.Conflict, "you have %d uploads on this node; finish or delete one first", mine)
	case len(s.all) >= MaxUploads:
		return model.Errorf(model.Conflict, "there are %d uploads on this node; finish or delete one first", len(s.all))
	case e.Size > free:
		return model.Errorf(model.NoSpace, "the node has room for uploads of %d bytes, not of %d", max(free, 0), e.Size)
	}
	s.all[e.ID] = e
	return nil
}

func starting() error {
	return model.Errorf(model.Unavailable, "the node is starting; try again")
}

// save writes an upload's description so that it is there after a loss of power.
func (s *Spool) save(u Upload) error {
	text, err := json.Marshal(u)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(s.path(u.ID, ".new"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(s.path(u.ID, ".new"), s.path(u.ID, ".json")); err != nil {
		return err
	}
	return s.syncDir()
}

func (s *Spool) syncDir() error {
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// List returns the uploads somebody may see, oldest first: their own, and an owner all.
func (s *Spool) List(by model.Actor) ([]Upload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		return nil, starting()
	}
	out := []Upload{}
	for _, e := range s.all {
		if e.seenBy(by) {
			out = append(out, e.Upload)
		}
	}
	slices.SortFunc(out, func(a, b Upload) int { return cmp.Or(a.Begun.Compare(b.Begun), cmp.Compare(a.ID, b.ID)) })
	return out, nil
}

func (e *entry) seenBy(by model.Actor) bool {
	return e.User == by.User && e.UserID == by.UserID || by.Role.Includes(model.Owner)
}

// Get returns one upload, or model.NotFound, also if it is somebody else's.
func (s *Spool) Get(by model.Actor, id model.UploadID) (Upload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.find(by, id)
	if err != nil {
		return Upload{}, err
	}
	return e.Upload, nil
}

// find looks an upload up. The lock is held.
func (s *Spool) find(by model.Actor, id model.UploadID) (*entry, error) {
	if !s.open {
		return nil, starting()
	}
	e := s.all[id]
	if e == nil || !e.seenBy(by) {
		return nil, model.Errorf(model.NotFound, "there is no upload %s on this node; one goes on at the node it began at", id)
	}
	return e, nil
}

// take makes the caller the one who changes an upload, until put or forget.
func (s *Spool) take(by model.Actor, id model.UploadID) (*entry, Upload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.find(by, id)
	if err != nil {
		return nil, Upload{}, err
	}
	if e.busy {
		return nil, Upload{}, model.Errorf(model.Conflict, "another request is sending or using the upload %s", id)
	}
	e.busy = true
	return e, e.Upload, nil
}

// put ends take; u is the upload as it is now.
func (s *Spool) put(e *entry, u Upload) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.Upload, e.busy = u, false
}

// forget ends take and removes the upload, its description first: a file without one is
// removed when the node starts.
func (s *Spool) forget(e *entry) error {
	var errs []error
	for _, end := range []string{".json", ".new", ".part"} {
		if err := os.Remove(s.path(e.ID, end)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove upload: %w", err))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, e.ID)
	return errors.Join(errs...)
}

// Remove forgets an upload, unless it is in use.
func (s *Spool) Remove(by model.Actor, id model.UploadID) error {
	e, _, err := s.take(by, id)
	if err != nil {
		return err
	}
	return s.forget(e)
}
