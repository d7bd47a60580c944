package server

import (
	"context"
	"errors"

	"drystone.example/drystone/backend/block/disk"
	"drystone.example/drystone/backend/block/layout"
	"drystone.example/drystone/backend/model"
)

// A status says how a request ended. Values are on the wire: appended, never
// renumbered.
type status uint8

const (
	statusOK status = 0

	statusInvalid     status = 1
	statusNotFound    status = 2
	statusConflict    status = 3
	statusDenied      status = 4
	statusUnavailable status = 5
	statusFenced      status = 6
	statusNoSpace     status = 7
	statusCorrupt     status = 8
	statusInternal    status = 9

	statusGap    status = 10 // disk.ErrGap
	statusBlocks status = 11 // *disk.CorruptError; the meta names the blocks
)

// codes maps the statuses that are nothing but a model.Code.
var codes = map[status]model.Code{
	statusInvalid:     model.Invalid,
	statusNotFound:    model.NotFound,
	statusConflict:    model.Conflict,
	statusDenied:      model.Denied,
	statusUnavailable: model.Unavailable,
	statusFenced:      model.Fenced,
	statusNoSpace:     model.NoSpace,
	statusCorrupt:     model.Corrupt,
	statusInternal:    model.Internal,
}

// textMost bounds the sentence that comes with a status, in bytes.
const textMost = 512

// statusOf says how err crosses the wire.
func statusOf(err error) status {
	if err == nil {
		return statusOK
	}
	if errors.Is(err, disk.ErrGap) {
		return statusGap
	}
	if e, ok := errors.AsType[*disk.CorruptError](err); ok && len(e.Blocks) > 0 && len(e.Blocks) <= maxBlocks {
		return statusBlocks
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return statusUnavailable
	}
	code := model.CodeOf(err)
	for s, c := range codes {
		if c == code {
			return s
		}
	}
	return statusInternal
}

// appendError appends what stands in the meta of an answer whose status is not OK:
//
//	text length u16 | text | and of statusBlocks: volume u64 | column u32 | n u32 | n blocks u64
func appendError(b []byte, s status, err error) []byte {
	text := ""
	if e, ok := errors.AsType[*model.Error](err); ok && s != statusInternal {
		text = e.Text[:min(len(e.Text), textMost)]
	}
	b = le.AppendUint16(b, uint16(len(text)))
	b = append(b, text...)
	if s != statusBlocks {
		return b
	}
	e, _ := errors.AsType[*disk.CorruptError](err)
	b = le.AppendUint64(b, uint64(e.Volume))
	b = le.AppendUint32(b, e.Column)
	b = le.AppendUint32(b, uint32(len(e.Blocks)))
	for _, block := range e.Blocks {
		b = le.AppendUint64(b, uint64(block))
	}
	return b
}

// readError reads what appendError wrote, as an error like the one the disk gave.
// It returns nil for statusOK.
func (r *reader) readError(s status) error {
	if s == statusOK {
		return nil
	}
	text := string(r.take(int(r.u16())))
	if s == statusGap {
		return disk.ErrGap
	}
	if s == statusBlocks {
		return r.corruptBlocks()
	}
	code, known := codes[s]
	if !known {
		code = model.Internal
	}
	if text == "" {
		text = "the disk failed; the log of its node says why"
	}
	return &model.Error{Code: code, Text: text}
}

func (r *reader) corruptBlocks() error {
	e := &disk.CorruptError{Volume: model.VolumeID(r.u64()), Column: r.u32()}
	n := int(r.u32())
	if n < 1 || n > maxBlocks || len(r.b) < 8*n {
		r.ok = false
		n = 1 // the link breaks; an error names a block all the same
	}
	for range n {
		e.Blocks = append(e.Blocks, layout.Block(r.u64()))
	}
	return e
}
