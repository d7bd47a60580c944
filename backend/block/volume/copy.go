package volume

import (
	"context"
	"hash/crc32"
	"math/bits"
	"time"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/iobuf"
	"drystone.example/drystone/backend/model"
)

const blockSize = int(model.BlockSize)

// shunFor is how long reads prefer another member after one failed.
const shunFor = time.Second

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sumOf(block []byte) uint32 { return crc32.Checksum(block, castagnoli) }

func popcount(mask uint16) int { return bits.OnesCount16(mask) }

// copyVersion makes one version the same on all targets, and returns when they
// have it or are members no more. The page is locked, or nothing is served yet.
func (v *Volume) copyVersion(ctx context.Context, c int, want disk.Version, sources, targets []*row) error {
	j := v.newJob()
	if want.Mask != 0 {
		buf := iobuf.Get(int(model.PageSize))
		if err := v.fetch(ctx, c, want, sources, buf.Bytes); err != nil {
			buf.Release()
			j.drop()
			return err
		}
		j.data = buf
		j.sums = compact(buf.Bytes, &want, j.sums)
	}
	for _, r := range targets {
		j.parts = append(j.parts, part{kind: disk.Copy, column: c, page: want.Page, version: want, only: r})
	}
	return v.run(ctx, j)
}

// copyLost makes a version the same on a member of which active ones have damaged
// blocks, so that a column with lost blocks can be whole again, and written.
// The invariant: a block is copied as lost only if every active member has said that
// it is damaged there; one that does not answer may have it whole. The page is locked.
func (v *Volume) copyLost(ctx context.Context, c int, want disk.Version, sources []*row, target *row) error {
	j := v.newJob()
	buf := iobuf.Get(int(model.PageSize))
	j.data = buf
	var lost uint16
	for i := range want.Sums {
		block := buf.Bytes[i*blockSize : (i+1)*blockSize]
		clear(block)
		if want.Mask>>i&1 == 0 {
			continue
		}
		switch err := v.readBlock(ctx, c, want, i, sources, block); model.CodeOf(err) { //nolint:exhaustive // the rest is the caller's
		case "":
		case model.Corrupt:
			clear(block)
			lost |= 1 << i
		default:
			j.drop()
			return err
		}
	}
	if lost != 0 {
		v.log.Error("lost blocks copied as lost", "volume", v.id, "column", c, "page", want.Page, "blocks", popcount(lost), "disk", target.id)
	}
	j.sums = compact(buf.Bytes, &want, j.sums)
	j.parts = append(j.parts, part{
		kind: disk.Copy, column: c, page: want.Page, version: want, lost: lost, only: target,
	})
	return v.run(ctx, j)
}

// readBlock reads one block of a version from the first source that has it whole. It
// is model.Corrupt if all of them have it damaged.
func (v *Volume) readBlock(ctx context.Context, c int, want disk.Version, i int, sources []*row, block []byte) error {
	ctx, cancel := context.WithTimeout(ctx, v.cfg.Timeout)
	defer cancel()
	failed := error(model.Errorf(model.Unavailable, "page %d of column %d has no source", want.Page, c))
	for at, from := range sources {
		var got [1]uint32
		err := v.judge(v.diskOf(from).Read(ctx, disk.Read{
			Volume: v.id, Generation: v.gen, Column: uint32(c),
			Block: layout.FirstBlock(want.Page) + layout.Block(i), Count: 1, Epoch: want.Epoch,
		}, block, got[:]))
		switch {
		case err == nil && sumOf(block) == want.Sums[i]:
			return nil
		case err == nil:
			err = model.Errorf(model.Corrupt, "block %d of page %d is another on disk %s", i, want.Page, from.id)
		}
		if at == 0 || model.CodeOf(err) != model.Corrupt {
			failed = err
		}
	}
	return failed
}

// removeVersion takes a version away from one disk.
func (v *Volume) removeVersion(ctx context.Context, c int, page uint32, e model.Epoch, from *row) error {
	j := v.newJob()
	j.parts = append(j.parts, part{
		kind: disk.Remove, column: c, page: page,
		version: disk.Version{Page: page, Epoch: e}, only: from,
	})
	return v.run(ctx, j)
}

// run starts a job whose parts name their rows, and waits for it.
func (v *Volume) run(ctx context.Context, j *job) error {
	if err := v.start(j); err != nil {
		j.drop()
		return err
	}
	return v.wait(ctx, j)
}

// compact moves the present blocks of a page to its front and returns their sums.
func compact(page []byte, have *disk.Version, sums []uint32) []uint32 {
	n := 0
	for i := range have.Sums {
		if have.Mask>>i&1 == 0 {
			continue
		}
		if n != i {
			copy(page[n*blockSize:(n+1)*blockSize], page[i*blockSize:(i+1)*blockSize])
		}
		sums = append(sums, have.Sums[i])
		n++
	}
	return sums
}

// fetch reads a version from the first source that has exactly that one, whole, or
// puts it together of sources that are each damaged elsewhere.
func (v *Volume) fetch(ctx context.Context, c int, want disk.Version, sources []*row, page []byte) error {
	var failed error
	damaged := 0
	for _, r := range sources {
		err := v.fetchFrom(ctx, r, c, want, page)
		if err == nil {
			return nil
		}
		if model.CodeOf(err) == model.Corrupt {
			damaged++
		}
		if failed == nil || model.CodeOf(err) != model.Corrupt {
			failed = err // one that may come back is the better reason
		}
	}
	if failed == nil {
		failed = model.Errorf(model.Unavailable, "page %d of column %d has no source", want.Page, c)
	}
	if damaged > 1 && v.gather(ctx, c, want, sources, page) {
		return nil
	}
	return failed
}

// gather reads a version block by block, each from the first source where it
// matches its sum. It reports whether that is all of it.
func (v *Volume) gather(ctx context.Context, c int, want disk.Version, sources []*row, page []byte) bool {
	for i := range want.Sums {
		block := page[i*blockSize : (i+1)*blockSize]
		if want.Mask>>i&1 == 0 {
			clear(block)
			continue
		}
		r := disk.Read{
			Volume: v.id, Generation: v.gen, Column: uint32(c),
			Block: layout.FirstBlock(want.Page) + layout.Block(i), Count: 1, Epoch: want.Epoch,
		}
		if !v.gatherBlock(ctx, r, want.Sums[i], sources, block) {
			return false
		}
	}
	return true
}

func (v *Volume) gatherBlock(ctx context.Context, r disk.Read, sum uint32, sources []*row, block []byte) bool {
	ctx, cancel := context.WithTimeout(ctx, v.cfg.Timeout)
	defer cancel()
	for _, from := range sources {
		var got [1]uint32
		err := v.judge(v.diskOf(from).Read(ctx, r, block, got[:]))
		if err == nil && sumOf(block) == sum {
			return true
		}
	}
	return false
}

func (v *Volume) fetchFrom(ctx context.Context, r *row, c int, want disk.Version, page []byte) error {
	ctx, cancel := context.WithTimeout(ctx, v.cfg.Timeout)
	defer cancel()
	got, err := v.diskOf(r).ReadVersion(ctx, v.id, v.gen, uint32(c), want.Page, want.Epoch, page)
	if err = v.judge(err); err != nil {
		v.suspect(r, err)
		return err
	}
	if got != want {
		return model.Errorf(model.Conflict, "page %d of column %d changed on disk %s", want.Page, c, r.id)
	}
	for i := range want.Sums {
		if want.Mask>>i&1 != 0 && sumOf(page[i*blockSize:(i+1)*blockSize]) != want.Sums[i] {
			return model.Errorf(model.Corrupt, "page %d of column %d from disk %s does not match its sums", want.Page, c, r.id)
		}
	}
	return nil
}

// suspect notes that a read from a disk failed. If the disk may be gone, a
// message that changes nothing finds out, with a deadline.
func (v *Volume) suspect(r *row, err error) {
	now := time.Now()
	v.mu.Lock()
	r.shunned = now.Add(shunFor)
	var rows []*row
	if model.CodeOf(err) != model.Corrupt && r.state != dead && r.first == nil && v.err == nil {
		rows = v.probe([]*row{r}, now)
	}
	v.pump(rows)
}
