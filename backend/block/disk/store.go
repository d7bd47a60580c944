package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/bits"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"drystone.example/drystone/backend/compactor"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/must"
)

// The tables of the map, by the first byte of the key.
const (
	tableDamage   = 'd' // volume, column, page, epoch -> blocks known to be damaged
	tableMeta     = 'm' // name -> value
	tablePages    = 'p' // volume, column, page, epoch -> version
	tableRefs     = 'r' // place -> number of versions that share it
	tableRows     = 'v' // volume -> row state and uncertain versions
	tableSpace    = 'b' // chunk -> which of its places are named
	tableCounts   = 'c' // volume, column -> how much there is of it
	valueVersion  = 1   // first byte of each value
	pageKeySize   = 1 + 8 + 4 + 4 + 4
	versionHeader = 24
)

// A store is the sorted map that checkpoints go into. It has no log of its own:
// what is not flushed is in the journal.
type store struct {
	db    *pebble.DB
	cache *pebble.Cache
}

// storeEvents are what a store calls back with: failed with the first error that
// makes it useless; stopped ends pebble's attempts to repeat what failed.
type storeEvents struct {
	failed  func(error)
	stopped <-chan struct{}
	log     *slog.Logger
}

// The memory of a store: small, for what is hot is kept in the page map's cache.
const (
	storeCache    = 4 << 20
	storeMemtable = 4 << 20
	storeFiles    = 64
	// A checkpoint is bounded by itself; were its writes to wait for a flush that
	// fails, they would wait for ever.
	neverStall = 1000
)

func openStore(fs vfs.FS, dir string, ev storeEvents) (*store, error) {
	s := &store{cache: pebble.NewCache(storeCache)}
	opts := &pebble.Options{
		FS: &mapFS{FS: fs, failed: ev.failed}, Cache: s.cache, DisableWAL: true,
		FormatMajorVersion:          pebble.FormatNewest,
		MemTableSize:                storeMemtable,
		MemTableStopWritesThreshold: neverStall,
		L0StopWritesThreshold:       neverStall,
		MaxOpenFiles:                storeFiles,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 1 },
		Logger:                      storeLog{ev},
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) {
				ev.failed(err)
				<-ev.stopped
			},
			DataCorruption: func(info pebble.DataCorruptionInfo) {
				ev.failed(model.Errorf(model.Corrupt, "the page map is damaged: %v", info.Details))
			},
		},
	}
	opts.Experimental.CompactionScheduler = &compactor.One{}
	var err error
	if s.db, err = pebble.Open(dir, opts); err != nil {
		s.cache.Unref()
		return nil, fmt.Errorf("open map: %w", err)
	}
	return s, nil
}

func (s *store) close() error {
	err := s.db.Close()
	s.cache.Unref()
	return err
}

// A storeLog lets pebble's messages through where they say that it is broken.
type storeLog struct{ ev storeEvents }

func (l storeLog) Infof(string, ...any) {}

func (l storeLog) Errorf(format string, args ...any) {
	l.ev.log.Error("page map", slog.String("err", fmt.Sprintf(format, args...)))
}

// Fatalf is called for what cannot be: errors of the file system do not reach
// pebble (mapFS), and it may not go on after this.
func (l storeLog) Fatalf(format string, args ...any) { must.That(false, format, args...) }

func pageKeyOf(b []byte, k pageKey, e model.Epoch) []byte {
	b = append(b[:0], tablePages)
	b = binary.BigEndian.AppendUint64(b, uint64(k.vol))
	b = binary.BigEndian.AppendUint32(b, k.column)
	b = binary.BigEndian.AppendUint32(b, k.page)
	return binary.BigEndian.AppendUint32(b, uint32(e))
}

func parsePageKey(b []byte) (k pageKey, e model.Epoch, ok bool) {
	if len(b) != pageKeySize || b[0] != tablePages {
		return k, 0, false
	}
	be := binary.BigEndian
	k.vol = model.VolumeID(be.Uint64(b[1:]))
	k.column, k.page = be.Uint32(b[9:]), be.Uint32(b[13:])
	return k, model.Epoch(be.Uint32(b[17:])), true
}

func appendVersion(b []byte, v *version) []byte {
	var h [versionHeader]byte
	le := binary.LittleEndian
	h[0] = valueVersion
	le.PutUint16(h[2:], v.mask)
	le.PutUint32(h[4:], uint32(v.place))
	putStamp(h[8:], v.stamp)
	b = append(b, h[:]...)
	var sums [4 * model.BlocksPerPage]byte
	putSums(sums[:], v)
	return append(b, sums[:4*bits.OnesCount16(v.mask)]...)
}

var errBadMap = model.Errorf(model.Corrupt, "the page map has an entry that makes no sense")

func parseVersion(b []byte, e model.Epoch) (v version, err error) {
	if len(b) < versionHeader || b[0] != valueVersion {
		return v, errBadMap
	}
	le := binary.LittleEndian
	v = version{
		epoch: e, mask: le.Uint16(b[2:]), place: place(le.Uint32(b[4:])), stamp: getStamp(b[8:]),
	}
	if len(b) != versionHeader+4*bits.OnesCount16(v.mask) ||
		(v.mask == 0) != (v.place == noPlace) {
		return v, errBadMap
	}
	getSums(b[versionHeader:], &v)
	return v, nil
}

// scan calls f with every version of the pages [from, to) of a column, in order.
// It stops when f returns false.
func (s *store) scan(vol model.VolumeID, column, from uint32, to uint64,
	f func(page uint32, v version) bool,
) error {
	lower := pageKeyOf(nil, pageKey{vol, column, from}, 0)
	upper := append(pageKeyOf(nil, pageKey{vol, column, math.MaxUint32}, math.MaxUint32), 0)
	if to <= math.MaxUint32 {
		upper = pageKeyOf(nil, pageKey{vol, column, uint32(to)}, 0)
	}
	return s.each(lower, upper, func(key, value []byte) (bool, error) {
		k, e, ok := parsePageKey(key)
		if !ok {
			return false, errBadMap
		}
		v, err := parseVersion(value, e)
		return err == nil && f(k.page, v), err
	})
}

// each calls f with every entry of [lower, upper) until it returns false.
func (s *store) each(lower, upper []byte, f func(key, value []byte) (bool, error)) error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return fmt.Errorf("read map: %w", err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return errors.Join(fmt.Errorf("read map: %w", err), it.Close())
		}
		if goOn, err := f(it.Key(), value); err != nil || !goOn {
			return errors.Join(err, it.Close())
		}
	}
	if err := it.Close(); err != nil {
		return fmt.Errorf("read map: %w", err)
	}
	return nil
}

// table calls f with every entry of a table.
func (s *store) table(t byte, f func(key, value []byte) (bool, error)) error {
	return s.each([]byte{t}, []byte{t + 1}, f)
}

// The entries of the meta table.
var (
	metaIdentity = []byte{tableMeta, 'i'} // disk and salt: the map belongs to this disk
	metaPosition = []byte{tableMeta, 'p'} // the batch from which on the journal is not in the map
	metaCounters = []byte{tableMeta, 'c'} // checksum errors, repaired
	metaSpace    = []byte{tableMeta, 'b'} // the batch that the space belongs to, and places named
	metaScrub    = []byte{tableMeta, 's'} // when the data was verified, and how far
)

func (s *store) get(key []byte) ([]byte, error) {
	v, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read map: %w", err)
	}
	return append([]byte(nil), v...), closer.Close()
}

func identityValue(s *superblock) []byte {
	b := []byte{valueVersion}
	b = binary.LittleEndian.AppendUint64(b, uint64(s.disk))
	return binary.LittleEndian.AppendUint64(b, s.salt)
}

func appendPair(b []byte, a, c uint64) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, a), c)
}

func parsePair(b []byte) (a, c uint64, ok bool) {
	if len(b) != 17 || b[0] != valueVersion {
		return 0, 0, false
	}
	return binary.LittleEndian.Uint64(b[1:]), binary.LittleEndian.Uint64(b[9:]), true
}

func rowKey(vol model.VolumeID) []byte {
	return binary.BigEndian.AppendUint64([]byte{tableRows}, uint64(vol))
}

func refsKey(p place) []byte {
	return binary.BigEndian.AppendUint32([]byte{tableRefs}, uint32(p))
}

const (
	rowStateSize  = 40
	uncertainSize = 28
)

// rowValue is a row and what is uncertain of it.
func rowValue(st rowState, u *uncertain) []byte {
	b := make([]byte, 1+rowStateSize, 1+rowStateSize+uncertainSize*len(u.made))
	b[0] = valueVersion
	putRow(b[1:], st)
	for k, s := range u.made {
		le := binary.LittleEndian
		b = le.AppendUint32(b, k.column)
		b = le.AppendUint32(b, k.page)
		b = le.AppendUint32(b, uint32(k.epoch))
		b = appendPair(b, uint64(s.Generation), s.Number)
	}
	return b
}

func parseRow(b []byte) (st rowState, made []uncertainOp, err error) {
	if len(b) < 1+rowStateSize || b[0] != valueVersion || (len(b)-1-rowStateSize)%uncertainSize != 0 {
		return st, nil, errBadMap
	}
	st = getRow(b[1:])
	for b = b[1+rowStateSize:]; len(b) > 0; b = b[uncertainSize:] {
		le := binary.LittleEndian
		made = append(made, uncertainOp{
			madeKey: madeKey{
				column: le.Uint32(b), page: le.Uint32(b[4:]), epoch: model.Epoch(le.Uint32(b[8:])),
			},
			op: getStamp(b[12:]),
		})
	}
	return st, made, nil
}
