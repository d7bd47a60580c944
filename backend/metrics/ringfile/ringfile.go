package ringfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
)

// A level is one ring of a file.
type level struct {
	step  int64 // seconds
	slots int64
}

// levels are the rings of a file, from the finest to the coarsest. Each step divides
// the next, and each ring is as long as many of the next one's steps.
var levels = [...]level{
	{1, 3600},        // an hour
	{10, 8640},       // a day
	{60, 30 * 1440},  // thirty days
	{3600, 2 * 8760}, // two years
}

func (l level) span() int64 { return l.step * l.slots }

// Span is how far back a file knows anything, in seconds.
func Span() int64 { return levels[len(levels)-1].span() }

// Steps are the seconds that a place of each ring covers, from the finest on.
func Steps() (out []int64) {
	for _, l := range levels {
		out = append(out, l.step)
	}
	return out
}

// Step is the finest step, in seconds, that what is age seconds old is still kept in.
func Step(age int64) int64 {
	for _, l := range levels {
		if age <= l.span() {
			return l.step
		}
	}
	return levels[len(levels)-1].step
}

// The limits of a file.
const (
	// batch is how many seconds are gathered before they are written.
	batch = 10

	magic      = "drystone-ring-1\n"
	headerSize = 4096 // the magic, the number of columns, and nothing else

	slotHead = 8 // u32 time, u32 seconds covered
	slotTail = 4 // u32 CRC-32C of all before, and of where it is
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A Layout says what the columns of a file are.
type Layout struct {
	// Weights has for each column the one by which its mean is weighted, such as that
	// of a latency by the operations; -1: by time alone.
	Weights []int
}

func (l Layout) slot() int64 { return slotHead + 4*int64(len(l.Weights)) + slotTail }

// Size is how large a file of the layout is at most, in bytes.
func (l Layout) Size() int64 {
	n := int64(headerSize)
	for _, v := range levels {
		n += v.slots * l.slot()
	}
	return n
}

// A Point is the mean of some time.
type Point struct {
	At      int64     `json:"t"` // Unix seconds of its begin
	Seconds int64     `json:"n"` // that it covers; 0: nothing is known, and Values has no meaning
	Values  []float32 `json:"v"`
}

// A File is one thing's numbers. Its methods are called by one goroutine at a time.
type File struct {
	f       *os.File
	layout  Layout
	pending []Point // seconds that are not written yet, in order
	last    int64   // the newest second that is known, or zero
}

// Open opens a file, or makes it. One that is of another layout, or no such file, is
// begun anew: numbers of another meaning are worth nothing.
func Open(path string, l Layout) (*File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // the caller says which
	if err != nil {
		return nil, fmt.Errorf("open history: %w", err)
	}
	r := &File{f: f, layout: l}
	if err := r.begin(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return r, nil
}

// begin checks the header, and finds the newest second.
func (r *File) begin() error {
	want := binary.LittleEndian.AppendUint32([]byte(magic), uint32(len(r.layout.Weights)))
	for _, w := range r.layout.Weights {
		want = append(want, byte(int8(w)))
	}
	have := make([]byte, len(want))
	if _, err := r.f.ReadAt(have, 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read history: %w", err)
	}
	if string(have) != string(want) {
		if err := r.f.Truncate(0); err != nil {
			return fmt.Errorf("begin history anew: %w", err)
		}
		if _, err := r.f.WriteAt(want, 0); err != nil {
			return fmt.Errorf("begin history: %w", err)
		}
	}
	newest, err := r.places(0, 0, levels[0].slots)
	if err != nil {
		return err
	}
	for i := range newest {
		if p := r.decode(0, int64(i), newest[i]); p.Seconds > 0 {
			r.last = max(r.last, p.At)
		}
	}
	return nil
}

// Close writes what waits and closes the file.
func (r *File) Close() error { return errors.Join(r.Settle(), r.f.Close()) }

// Last is the newest second that the file knows, or zero.
func (r *File) Last() int64 { return r.last }

// Add takes the values of one second. One that is not newer than the last one is left
// out, so that a clock that was set back a little makes a gap; one that is older by more
// than the finest ring is long is taken, so that a clock that once was far ahead does
// not end the history.
func (r *File) Add(second int64, values []float32) error {
	back := r.last - second
	if back >= 0 && back < levels[0].span() || second <= 0 || second > math.MaxUint32 {
		return nil
	}
	var err error
	if r.last/batch != second/batch {
		err = r.Settle()
	}
	r.pending = append(r.pending, Point{At: second, Seconds: 1, Values: values})
	r.last = second
	return err
}

// Settle writes what waits, and the places of the coarser rings that the newest second
// lies in, as far as they have come.
func (r *File) Settle() error {
	if len(r.pending) == 0 {
		return nil
	}
	waiting := r.pending
	r.pending = nil
	for _, p := range waiting {
		if err := r.put(0, p); err != nil {
			return err
		}
	}
	// All that waited is of one batch, hence of one place in every coarser ring.
	newest := waiting[len(waiting)-1].At
	for i := 1; i < len(levels); i++ {
		at := newest - newest%levels[i].step
		fine, err := r.read(i-1, at, at+levels[i].step)
		if err != nil {
			return err
		}
		if p := r.layout.Mean(at, fine); p.Seconds > 0 {
			if err := r.put(i, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// Read returns the means of every step seconds in [from, to), in order, also of those
// that nothing is known of. Step is a multiple of Step(now-from), and from one of step;
// whoever asks bounds how many points that are.
func (r *File) Read(from, to, step int64) ([]Point, error) {
	if err := r.Settle(); err != nil {
		return nil, err
	}
	i := len(levels) - 1
	for i > 0 && (levels[i].step > step || step%levels[i].step != 0) {
		i--
	}
	fine, err := r.read(i, from, to)
	if err != nil {
		return nil, err
	}
	var out []Point
	for at := from; at < to; at += step {
		n := 0
		for n < len(fine) && fine[n].At < at+step {
			n++
		}
		out = append(out, r.layout.Mean(at, fine[:n]))
		fine = fine[n:]
	}
	return out, nil
}

// Mean is the mean of points, weighted by what they cover and by Weights.
func (l Layout) Mean(at int64, points []Point) Point {
	out := Point{At: at, Values: make([]float32, len(l.Weights))}
	for _, p := range points {
		out.Seconds += p.Seconds
	}
	for c, by := range l.Weights {
		var sum, weight float64
		for _, p := range points {
			if p.Seconds == 0 {
				continue
			}
			w := float64(p.Seconds)
			if by >= 0 {
				w *= float64(p.Values[by])
			}
			sum += w * float64(p.Values[c])
			weight += w
		}
		if weight > 0 {
			out.Values[c] = float32(sum / weight)
		}
	}
	return out
}

// read returns what a ring has of [from, to), in order.
func (r *File) read(i int, from, to int64) (out []Point, err error) {
	l := levels[i]
	to = min(to, r.last+1)
	for n := max(from, to-l.span()) / l.step; n*l.step < to; {
		first := n % l.slots
		count := min(l.slots-first, (to-n*l.step+l.step-1)/l.step)
		places, err := r.places(i, first, count)
		if err != nil {
			return nil, err
		}
		for k, b := range places {
			p := r.decode(i, first+int64(k), b)
			if p.Seconds > 0 && p.At == (n+int64(k))*l.step {
				out = append(out, p)
			}
		}
		n += count
	}
	return out, nil
}

// offset is where a ring's place is in the file.
func (r *File) offset(i int, place int64) int64 {
	at := int64(headerSize)
	for _, l := range levels[:i] {
		at += l.slots * r.layout.slot()
	}
	return at + place*r.layout.slot()
}

// places reads count places of a ring; what the file ends before is zero.
func (r *File) places(i int, first, count int64) ([][]byte, error) {
	size := r.layout.slot()
	b := make([]byte, count*size)
	if _, err := r.f.ReadAt(b, r.offset(i, first)); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read history: %w", err)
	}
	out := make([][]byte, count)
	for k := range out {
		out[k] = b[int64(k)*size : int64(k+1)*size]
	}
	return out, nil
}

func (r *File) put(i int, p Point) error {
	place := p.At / levels[i].step % levels[i].slots
	b := binary.LittleEndian.AppendUint32(nil, uint32(p.At))
	b = binary.LittleEndian.AppendUint32(b, uint32(p.Seconds))
	for _, v := range p.Values {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v))
	}
	b = binary.LittleEndian.AppendUint32(b, checksum(b, i, place))
	if _, err := r.f.WriteAt(b, r.offset(i, place)); err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	return nil
}

// decode returns what a place says, or a Point that covers nothing.
func (r *File) decode(i int, place int64, b []byte) Point {
	le, end := binary.LittleEndian, len(b)-slotTail
	p := Point{At: int64(le.Uint32(b)), Seconds: int64(le.Uint32(b[4:]))}
	if p.Seconds == 0 || p.Seconds > levels[i].step || le.Uint32(b[end:]) != checksum(b[:end], i, place) {
		return Point{}
	}
	for v := b[slotHead:end]; len(v) > 0; v = v[4:] {
		p.Values = append(p.Values, math.Float32frombits(le.Uint32(v)))
	}
	return p
}

func checksum(b []byte, ring int, place int64) uint32 {
	where := binary.LittleEndian.AppendUint64([]byte{byte(ring)}, uint64(place))
	return crc32.Update(crc32.Checksum(where, castagnoli), castagnoli, b)
}
