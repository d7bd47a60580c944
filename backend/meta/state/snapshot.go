package state

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"drystone.example/drystone/backend/model"
)

// The format of a snapshot, version 1, integers big-endian:
//
//	magic "DRYSTATE", version uint16, index uint64
//	rows:  table uint8 (1 is the first), key, name, body, each uint32 length and bytes
//	end:   table 0, then SHA-256 of all before it
//
// Tables come in the order of tableNames, rows in the order of their keys. An
// empty name is none. The digest over the rows alone is the record's Digest.
const (
	snapshotMagic   = "DRYSTATE"
	snapshotVersion = 1
	maxField        = 64 << 20
)

// A Snapshot is the record at one moment, to be written while the record goes on.
type Snapshot struct {
	tx    *sql.Tx
	index uint64
}

// Snapshot pins the record as it is now. It must be released.
func (s *Store) Snapshot(ctx context.Context) (*Snapshot, error) {
	if s.failed != nil {
		return nil, s.failed
	}
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("begin a snapshot: %w", err)
	}
	// SQLite pins the moment at the first read, not at the beginning.
	var n int
	if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM `+clusterKind.name).Scan(&n); err != nil {
		return nil, errors.Join(fmt.Errorf("begin a snapshot: %w", err), tx.Rollback())
	}
	return &Snapshot{tx: tx, index: s.View().Index()}, nil
}

// Release ends the snapshot; what it pinned may go.
func (s *Snapshot) Release() error { return s.tx.Rollback() }

// Index is the last entry of the log that is in the snapshot.
func (s *Snapshot) Index() uint64 { return s.index }

// Encode writes the snapshot.
func (s *Snapshot) Encode(ctx context.Context, w io.Writer) error {
	sum := sha256.New()
	buf := bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10)
	head := append([]byte(snapshotMagic), 0, snapshotVersion)
	head = binary.BigEndian.AppendUint64(head, s.index)
	if _, err := buf.Write(head); err != nil {
		return fmt.Errorf("write the snapshot: %w", err)
	}
	if err := s.rows(ctx, buf); err != nil {
		return err
	}
	if err := errors.Join(buf.WriteByte(0), buf.Flush()); err != nil {
		return fmt.Errorf("write the snapshot: %w", err)
	}
	if _, err := w.Write(sum.Sum(nil)); err != nil {
		return fmt.Errorf("write the snapshot: %w", err)
	}
	return nil
}

// Digest is a SHA-256 of all rows of the record, in hex. Two nodes at the same
// index have the same one.
func (s *Snapshot) Digest(ctx context.Context) (string, error) {
	sum := sha256.New()
	if err := s.rows(ctx, sum); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// Digest is the digest of the record as it is now.
func (s *Store) Digest(ctx context.Context) (digest string, err error) {
	snap, err := s.Snapshot(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, snap.Release()) }()
	return snap.Digest(ctx)
}

func (s *Snapshot) rows(ctx context.Context, w io.Writer) error {
	for i, table := range tableNames() {
		if err := s.tableRows(ctx, w, byte(i+1), table); err != nil {
			return fmt.Errorf("write %s to the snapshot: %w", table, err)
		}
	}
	return nil
}

func (s *Snapshot) tableRows(ctx context.Context, w io.Writer, number byte, table string) (err error) {
	rows, err := s.tx.QueryContext(ctx, statementsOf(table).list)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var line []byte
	for rows.Next() {
		var key, body string
		var name sql.NullString
		if err := rows.Scan(&key, &name, &body); err != nil {
			return err
		}
		line = append(line[:0], number)
		for _, field := range []string{key, name.String, body} {
			line = binary.BigEndian.AppendUint32(line, uint32(len(field)))
			line = append(line, field...)
		}
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Restore replaces the whole record by a snapshot. If the snapshot is damaged,
// or of a version this daemon does not know, the record stays as it was.
func (s *Store) Restore(ctx context.Context, r io.Reader) error {
	in := &snapshotReader{sum: sha256.New()}
	in.r = bufio.NewReaderSize(r, 64<<10)
	t, recent, audits := newTables(), []string(nil), auditTail{}
	err := s.inTx(ctx, func(q *sql.Tx) error {
		for _, table := range tableNames() {
			if _, err := q.ExecContext(ctx, statementsOf(table).empty); err != nil {
				return fmt.Errorf("empty %s: %w", table, err)
			}
		}
		if err := in.head(); err != nil {
			return err
		}
		for {
			w, more, err := in.row()
			if err != nil || !more {
				return err
			}
			if err := w.exec(ctx, q); err != nil {
				return fmt.Errorf("restore %s %s: %w", w.table, w.key, err)
			}
			if err := t.load(w, &audits); err != nil {
				return fmt.Errorf("restore %s %s: %w", w.table, w.key, err)
			}
		}
	})
	if err != nil {
		return fmt.Errorf("restore the record: %w", err)
	}
	for _, request := range t.requests.sorted() {
		recent = append(recent, request.Request)
	}
	changed := map[Noun]uint64{}
	for _, n := range AllNouns() {
		changed[n] = in.index
	}
	s.recent, s.audits, s.failed = recent, audits, nil
	s.publish(t, in.index, changed)
	return nil
}

// load decodes one row into the table it belongs to.
func (t *tables) load(w write, audits *auditTail) error {
	switch w.table {
	case clusterKind.name:
		return loadRow(t.cluster, w)
	case nodeKind.name:
		return loadRow(t.nodes, w)
	case removedKind.name:
		return loadRow(t.removed, w)
	case diskKind.name:
		return loadRow(t.disks, w)
	case volumeKind.name:
		return loadRow(t.volumes, w)
	case deletedKind.name:
		return loadRow(t.deleted, w)
	case vmKind.name:
		return loadRow(t.vms, w)
	case userKind.name:
		return loadRow(t.users, w)
	case sessionKind.name:
		return loadRow(t.sessions, w)
	case tokenKind.name:
		return loadRow(t.tokens, w)
	case requestKind.name:
		return loadRow(t.requests, w)
	case snapshotKind.name:
		return loadRow(t.snapshots, w)
	case networkKind.name:
		return loadRow(t.networks, w)
	case seedKind.name:
		return loadRow(t.seeds, w)
	case auditTable:
		var row model.AuditRow
		if err := json.Unmarshal(w.body, &row); err != nil {
			return err
		}
		audits.hash = row.Hash // rows come in order; the last one stays
		audits.count++
		return nil
	}
	return fmt.Errorf("there is no table %q", w.table)
}

func loadRow[K cmp.Ordered, V any](t *table[K, V], w write) error {
	var row V
	if err := json.Unmarshal(w.body, &row); err != nil {
		return err
	}
	if key := t.kind.text(t.kind.key(row)); key != w.key {
		return fmt.Errorf("the row's key is %q", key)
	}
	t.put(row)
	return nil
}

// A snapshotReader takes a snapshot apart.
type snapshotReader struct {
	r     *bufio.Reader
	sum   hash.Hash
	index uint64
}

func damaged(what string, err error) error {
	return &model.Error{Code: model.Corrupt, Text: "the snapshot is damaged: " + what, Err: err}
}

func (in *snapshotReader) read(p []byte) error {
	if _, err := io.ReadFull(in.r, p); err != nil {
		return damaged("it ends early", err)
	}
	in.sum.Write(p)
	return nil
}

func (in *snapshotReader) head() error {
	p := make([]byte, len(snapshotMagic)+2+8)
	if err := in.read(p); err != nil {
		return err
	}
	if string(p[:len(snapshotMagic)]) != snapshotMagic {
		return damaged("it does not begin as one", nil)
	}
	p = p[len(snapshotMagic):]
	if v := binary.BigEndian.Uint16(p); v != snapshotVersion {
		return model.Errorf(model.Invalid, "the snapshot has version %d; this daemon reads version %d",
			v, snapshotVersion)
	}
	in.index = binary.BigEndian.Uint64(p[2:])
	return nil
}

// row reads the next row, or at the end checks the digest.
func (in *snapshotReader) row() (w write, more bool, err error) {
	var number [1]byte
	if err := in.read(number[:]); err != nil {
		return write{}, false, err
	}
	if number[0] == 0 {
		want, got := in.sum.Sum(nil), make([]byte, sha256.Size)
		if err := in.read(got); err != nil {
			return write{}, false, err
		}
		if !slices.Equal(want, got) {
			return write{}, false, damaged("its digest is another one", nil)
		}
		return write{}, false, nil
	}
	names := tableNames()
	if int(number[0]) > len(names) {
		return write{}, false, damaged("it has a table that is not known", nil)
	}
	var fields [3][]byte
	for i := range fields {
		if fields[i], err = in.field(); err != nil {
			return write{}, false, err
		}
	}
	w = write{table: names[number[0]-1], key: string(fields[0]), body: fields[2]}
	if len(fields[1]) > 0 {
		w.name = string(fields[1])
	}
	return w, true, nil
}

func (in *snapshotReader) field() ([]byte, error) {
	var size [4]byte
	if err := in.read(size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxField {
		return nil, damaged("a field is too long", nil)
	}
	p := make([]byte, n)
	return p, in.read(p)
}
