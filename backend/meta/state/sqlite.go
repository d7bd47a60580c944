package state

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// auditTable holds the audit log; it has no decoded table.
const auditTable = "audit"

// tableNames lists the tables of SQLite in the order of snapshots.
func tableNames() []string {
	return []string{
		clusterKind.name, nodeKind.name, removedKind.name, diskKind.name, volumeKind.name,
		deletedKind.name, vmKind.name, userKind.name, sessionKind.name, tokenKind.name,
		requestKind.name, auditTable, snapshotKind.name, networkKind.name, seedKind.name,
	}
}

func lower(s string) string { return strings.ToLower(s) }

// createTables makes the tables. All are alike: a row is a key, for some nouns a
// name that is unique, and JSON.
func (s *Store) createTables(ctx context.Context) error {
	for _, name := range tableNames() {
		if _, err := s.write.ExecContext(ctx, statementsOf(name).create); err != nil {
			return fmt.Errorf("create table %s: %w", name, err)
		}
	}
	return nil
}

// commit writes rows in one transaction.
func (s *Store) commit(ctx context.Context, writes []write) error {
	if len(writes) == 0 {
		return nil
	}
	return s.inTx(ctx, func(q *sql.Tx) error {
		for _, w := range writes {
			if err := w.exec(ctx, q); err != nil {
				return fmt.Errorf("write %s %s: %w", w.table, w.key, err)
			}
		}
		return nil
	})
}

// inTx runs f in a transaction of the writing connection.
func (s *Store) inTx(ctx context.Context, f func(*sql.Tx) error) error {
	q, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	if err := f(q); err != nil {
		if undo := q.Rollback(); undo != nil {
			return fmt.Errorf("%w (and roll back: %w)", err, undo)
		}
		return err
	}
	if err := q.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

func (w write) exec(ctx context.Context, q *sql.Tx) error {
	s := statementsOf(w.table)
	switch {
	case w.oldest > 0:
		_, err := q.ExecContext(ctx, s.cut, w.oldest)
		return err
	case w.body == nil:
		_, err := q.ExecContext(ctx, s.drop, w.key)
		return err
	default:
		_, err := q.ExecContext(ctx, s.put, w.key, w.name, string(w.body))
		return err
	}
}

// statements are what is done to one table.
type statements struct{ create, put, drop, cut, empty, list string }

// statementsOf writes the statements of a table, whose name is one of tableNames
// and never anybody's input.
func statementsOf(table string) statements {
	return statements{
		create: `CREATE TABLE ` + table +
			` (key TEXT PRIMARY KEY, name TEXT UNIQUE, body TEXT NOT NULL) WITHOUT ROWID`,
		put: `INSERT INTO ` + table + ` (key, name, body) VALUES (?, ?, ?)
			ON CONFLICT (key) DO UPDATE SET name = excluded.name, body = excluded.body`,
		drop: `DELETE FROM ` + table + ` WHERE key = ?`,
		cut: `DELETE FROM ` + table + ` WHERE key IN
			(SELECT key FROM ` + table + ` ORDER BY key LIMIT ?)`,
		empty: `DELETE FROM ` + table,
		list:  `SELECT key, name, body FROM ` + table + ` ORDER BY key`,
	}
}
