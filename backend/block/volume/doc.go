// Package volume is the holder of a volume: the one place that stamps its
// writes, mirrors them, chooses where to read, takes over from the holder before
// it, and brings members back. It is not a disk, not a network and not raft: it
// reaches all three through the interfaces in seams.go.
//
// What a caller may rely on:
//
//   - A write is answered when every active member of its columns has it durable, and
//     every joining one that has reached its pages, or when the record says, by compare-and-swap, that the one which
//     has not is no member any more. A flush therefore finds nothing to do.
//   - A read never returns something older than what was acknowledged or read
//     before, and never a block whose checksum does not match.
//   - Two requests that overlap, of which one writes, never fly together.
//   - The last active member of a column is never dropped: the requests wait, and
//     Status says for which disk.
//   - When another holder has taken the volume, every request fails with
//     model.Fenced, for ever; Done is closed.
//
// The rules are those of docs/SAFETY.md; tests/model is their executable form,
// and the names of its steps are used here.
package volume
