package powerfs

import (
	"maps"
	"slices"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// calls are what the kernel asks of a mounted tree. What is missing, the kernel does
// by itself or refuses.
type calls struct {
	fuse.RawFileSystem
	t *tree
}

// believed is how long the kernel may rely on what it was told: nobody else changes
// anything.
const believed = time.Minute

// enter tells of a node that was looked up.
func enter(n *node, out *fuse.EntryOut) {
	out.NodeId = n.number
	out.SetEntryTimeout(believed)
	out.SetAttrTimeout(believed)
	n.attr(&out.Attr)
}

// node finds a node; the kernel names only those it was told of.
func (c *calls) node(number uint64) *node {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	return c.t.nodes[number]
}

// change makes a change under the mutex and lets the call return.
func (c *calls) change(f func() fuse.Status) fuse.Status {
	c.t.mu.Lock()
	status := f()
	c.t.mu.Unlock()
	if status != fuse.OK {
		return status
	}
	return c.t.life.answer(nil)
}

func (c *calls) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	return c.change(func() fuse.Status {
		n := c.t.nodes[in.NodeId].names[name]
		if n == nil {
			return fuse.ENOENT
		}
		enter(n, out)
		return fuse.OK
	})
}

func (c *calls) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return c.change(func() fuse.Status {
		out.SetTimeout(believed)
		c.t.nodes[in.NodeId].attr(&out.Attr)
		return fuse.OK
	})
}

func (c *calls) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	return c.change(func() fuse.Status {
		n := c.t.nodes[in.NodeId]
		if mode, ok := in.GetMode(); ok {
			n.mode = n.mode&unix.S_IFMT | mode
		}
		if uid, ok := in.GetUID(); ok {
			n.uid = uid
		}
		if gid, ok := in.GetGID(); ok {
			n.gid = gid
		}
		if size, ok := in.GetSize(); ok {
			if n.contents == nil {
				return fuse.EINVAL
			}
			n.contents.truncate(int64(size))
		}
		n.changed = time.Now()
		out.SetTimeout(believed)
		n.attr(&out.Attr)
		return fuse.OK
	})
}

// make gives a new node a name.
func (c *calls) make(in *fuse.InHeader, mode uint32, name string, out *fuse.EntryOut) (*node, fuse.Status) {
	parent := c.t.nodes[in.NodeId]
	if parent.names[name] != nil {
		return nil, fuse.Status(unix.EEXIST)
	}
	n, err := c.t.add(mode, in.Owner)
	if err != nil {
		return nil, fuse.ToStatus(err)
	}
	parent.alter(change{name: n})
	enter(n, out)
	return n, fuse.OK
}

func (c *calls) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return c.change(func() fuse.Status {
		_, status := c.make(&in.InHeader, in.Mode, name, out)
		return status
	})
}

func (c *calls) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return c.change(func() fuse.Status {
		_, status := c.make(&in.InHeader, unix.S_IFDIR|in.Mode, name, out)
		return status
	})
}

func (c *calls) Symlink(_ <-chan struct{}, in *fuse.InHeader, to, name string, out *fuse.EntryOut) fuse.Status {
	return c.change(func() fuse.Status {
		n, status := c.make(in, unix.S_IFLNK|0o777, name, out)
		if status == fuse.OK {
			n.target = to
			n.attr(&out.Attr)
		}
		return status
	})
}

func (c *calls) Readlink(_ <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	return []byte(c.node(in.NodeId).target), c.t.life.answer(nil)
}

func (c *calls) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	return c.change(func() fuse.Status {
		_, status := c.make(&in.InHeader, unix.S_IFREG|in.Mode, name, &out.EntryOut)
		opened(in.Flags, &out.OpenOut)
		return status
	})
}

func (c *calls) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	return c.change(func() fuse.Status {
		parent, n := c.t.nodes[in.NodeId], c.t.nodes[in.Oldnodeid]
		if parent.names[name] != nil {
			return fuse.Status(unix.EEXIST)
		}
		parent.alter(change{name: n})
		enter(n, out)
		return fuse.OK
	})
}

func (c *calls) Unlink(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return c.change(func() fuse.Status {
		parent := c.t.nodes[in.NodeId]
		if parent.names[name] == nil {
			return fuse.ENOENT
		}
		parent.alter(change{name: nil})
		return fuse.OK
	})
}

func (c *calls) Rmdir(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	c.t.mu.Lock()
	n := c.t.nodes[in.NodeId].names[name]
	full := n != nil && len(n.names) > 0
	c.t.mu.Unlock()
	if full {
		return fuse.Status(unix.ENOTEMPTY)
	}
	return c.Unlink(cancel, in, name)
}

func (c *calls) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	return c.change(func() fuse.Status {
		source, target := c.t.nodes[in.NodeId], c.t.nodes[in.Newdir]
		n, old := source.names[from], target.names[to]
		switch {
		case n == nil:
			return fuse.ENOENT
		case in.Flags&^unix.RENAME_NOREPLACE != 0:
			return fuse.EINVAL
		case old != nil && in.Flags != 0:
			return fuse.Status(unix.EEXIST)
		case old != nil && len(old.names) > 0:
			return fuse.Status(unix.ENOTEMPTY)
		case old == n:
		case source == target:
			source.alter(change{from: nil, to: n})
		default: // the two may survive one without the other
			source.alter(change{from: nil})
			target.alter(change{to: n})
		}
		return fuse.OK
	})
}

// opened says how the kernel shall treat an open file: it keeps what was read, unless
// it was told not to.
func opened(flags uint32, out *fuse.OpenOut) {
	if flags&unix.O_DIRECT != 0 {
		out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES
	} else {
		out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	}
}

func (c *calls) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n := c.node(in.NodeId)
	if in.Flags&unix.O_TRUNC != 0 {
		n.contents.truncate(0)
	}
	opened(in.Flags, out)
	return c.t.life.answer(nil)
}

func (c *calls) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	got, err := c.node(in.NodeId).contents.read(buf, int64(in.Offset))
	if err != nil {
		return nil, fuse.ToStatus(err)
	}
	return fuse.ReadResultData(buf[:got]), c.t.life.answer(nil)
}

// Write is in two steps: until the second one a write with O_DSYNC is like any other,
// and torn by a cut. The kernel tells of RWF_DSYNC in the same flags.
func (c *calls) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	n := c.node(in.NodeId)
	off, end := int64(in.Offset), int64(in.Offset)+int64(len(data))
	if err := n.contents.write(data, off); err != nil {
		return 0, fuse.ToStatus(err)
	}
	done := uint32(len(data))
	if in.Flags&unix.O_DSYNC == 0 {
		return done, c.t.life.answer(nil)
	}
	return done, c.t.life.sync(LieOfWrites, func() fuse.Status { return n.sync(off, end) })
}

func (c *calls) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	n := c.node(in.NodeId)
	return c.t.life.sync(LieOfFiles, func() fuse.Status { return n.sync(0, wholeFile) })
}

func (c *calls) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return c.t.life.sync(LieOfNames, func() fuse.Status {
		c.t.mu.Lock()
		defer c.t.mu.Unlock()
		c.t.nodes[in.NodeId].settle()
		return fuse.OK
	})
}

// Fallocate takes no space: the folder's file system has it or has not.
func (c *calls) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	switch in.Mode {
	case 0:
		c.node(in.NodeId).contents.grow(int64(in.Offset + in.Length))
	case unix.FALLOC_FL_KEEP_SIZE:
	default:
		return fuse.Status(unix.EOPNOTSUPP)
	}
	return c.t.life.answer(nil)
}

// Flush is close, which makes nothing durable.
func (c *calls) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return c.t.life.answer(nil) }

func (c *calls) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return c.change(func() fuse.Status {
		names := c.t.nodes[in.NodeId].names
		var list []fuse.DirEntry
		for _, name := range slices.Sorted(maps.Keys(names)) {
			list = append(list, fuse.DirEntry{Name: name, Ino: names[name].number, Mode: names[name].mode})
		}
		c.t.open++
		c.t.lists[c.t.open], out.Fh = list, c.t.open
		return fuse.OK
	})
}

func (c *calls) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return c.change(func() fuse.Status {
		list := c.t.lists[in.Fh]
		for i := in.Offset; i < uint64(len(list)); i++ {
			e := list[i]
			e.Off = i + 1
			if !out.AddDirEntry(e) {
				break
			}
		}
		return fuse.OK
	})
}

func (c *calls) ReleaseDir(in *fuse.ReleaseIn) {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	delete(c.t.lists, in.Fh)
}

func (c *calls) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	var s unix.Statfs_t
	if err := unix.Statfs(c.t.dir, &s); err != nil {
		return fuse.ToStatus(err)
	}
	*out = fuse.StatfsOut{
		Blocks: s.Blocks, Bfree: s.Bfree, Bavail: s.Bavail, Files: s.Files, Ffree: s.Ffree,
		Bsize: uint32(s.Bsize), Frsize: uint32(s.Frsize), NameLen: uint32(s.Namelen),
	}
	return c.t.life.answer(nil)
}
