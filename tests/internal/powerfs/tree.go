package powerfs

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A tree is the names of a drive and what they stand for, during one life.
type tree struct {
	dir  string
	life *life

	mu    sync.Mutex // guards what follows, and all directories
	nodes map[uint64]*node
	last  uint64 // number given
	lists map[uint64][]fuse.DirEntry
	open  uint64 // number of a list given
}

// A node is a directory, a file, or something else that has a name. The tree's mutex
// guards it, but for its contents.
type node struct {
	number   uint64
	mode     uint32
	uid, gid uint32
	changed  time.Time
	links    uint32
	target   string // of a symbolic link

	contents *contents // of a file
	names    map[string]*node
	stable   map[string]*node // the names that are durable
	since    []change         // what makes names of stable
}

// A change is done whole or not at all: names and what they stand for from then on,
// nil for nothing.
type change map[string]*node

func newTree(dir string, l *life) *tree {
	t := &tree{dir: dir, life: l, nodes: map[uint64]*node{}, lists: map[uint64][]fuse.DirEntry{}}
	root := &node{number: fuse.FUSE_ROOT_ID, mode: unix.S_IFDIR | 0o755, links: 1}
	root.names, root.stable = map[string]*node{}, map[string]*node{}
	t.nodes[root.number], t.last = root, root.number
	return t
}

// add makes a node that has no name yet.
func (t *tree) add(mode uint32, owner fuse.Owner) (*node, error) {
	t.last++
	n := &node{number: t.last, mode: mode, uid: owner.Uid, gid: owner.Gid, changed: time.Now()}
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		n.names, n.stable = map[string]*node{}, map[string]*node{}
	case unix.S_IFREG:
		var err error
		if n.contents, err = newContents(filepath.Join(t.dir, fmt.Sprintf("%08d", n.number))); err != nil {
			return nil, err
		}
	}
	t.nodes[n.number] = n
	return n, nil
}

// alter makes a change to a directory, which is not durable yet.
func (n *node) alter(c change) {
	for name, to := range c {
		if old := n.names[name]; old != nil {
			old.links--
		}
		if to != nil {
			to.links++
		}
	}
	apply(n.names, c)
	n.since = append(n.since, c)
	n.changed = time.Now()
}

func apply(names map[string]*node, c change) {
	for name, to := range c {
		if to == nil {
			delete(names, name)
		} else {
			names[name] = to
		}
	}
}

// settle makes the names in a directory durable.
func (n *node) settle() {
	n.stable, n.since = maps.Clone(n.names), nil
}

// sync makes what is in a file durable.
func (n *node) sync(from, to int64) fuse.Status {
	return fuse.ToStatus(n.contents.sync(from, to))
}

const wholeFile = math.MaxInt64

// survive makes the tree of the life after a loss of power.
func (t *tree) survive(l *life, rng *rand.Rand, k Keep) (*tree, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := newTree(t.dir, l)
	next.last = t.last
	root := t.nodes[fuse.FUSE_ROOT_ID]
	next.nodes[root.number] = root
	if err := next.keep(root, rng, k); err != nil {
		return nil, err
	}
	for number, n := range t.nodes {
		if next.nodes[number] == nil && n.contents != nil {
			if err := errors.Join(n.contents.back.Close(), os.Remove(n.contents.back.Name())); err != nil {
				return nil, err
			}
		}
	}
	return next, nil
}

// keep decides what is left of a directory and of all below it.
func (t *tree) keep(n *node, rng *rand.Rand, k Keep) error {
	done := len(n.since)
	switch {
	case k == Nothing:
		done = 0
	case k < Everything:
		done = rng.IntN(done + 1)
	}
	for _, c := range n.since[:done] {
		apply(n.stable, c)
	}
	n.names, n.since = maps.Clone(n.stable), nil
	for _, name := range slices.Sorted(maps.Keys(n.names)) { // the order of a seed
		child := n.names[name]
		child.links++
		if t.nodes[child.number] != nil {
			continue // it has another name
		}
		t.nodes[child.number], child.links = child, 1
		switch {
		case child.contents != nil:
			if err := child.contents.survive(rng, k); err != nil {
				return err
			}
		case child.names != nil:
			if err := t.keep(child, rng, k); err != nil {
				return err
			}
		}
	}
	return nil
}

// close lets go of the files of the folder.
func (t *tree) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, n := range t.nodes {
		if n.contents != nil {
			errs = append(errs, n.contents.back.Close())
		}
	}
	return errors.Join(errs...)
}

// attr is what the kernel wants to know of a node.
func (n *node) attr(a *fuse.Attr) {
	*a = fuse.Attr{Ino: n.number, Mode: n.mode, Nlink: n.links, Blksize: pageSize}
	a.Uid, a.Gid = n.uid, n.gid
	a.SetTimes(&n.changed, &n.changed, &n.changed)
	switch {
	case n.contents != nil:
		a.Size = uint64(n.contents.length())
	case n.target != "":
		a.Size = uint64(len(n.target))
	}
	a.Blocks = (a.Size + sectorSize - 1) / sectorSize
}
