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
	return []string{clusterKind.name, nodeKind.name, removedKind.name, diskKind.name, volumeKind.name,
		deletedKind.name, vmKind.name, userKind.name, sessionKind.name, tokenKind.name,
		requestKind.name, auditTable}
}

func lower(s string) string { return strings.ToLower(s) }

// createTables makes the tables. All are alike: a row is a key, for some nouns a
// name that is unique, and JSON.
func (s *Store) createTables(ctx context.Context) error {
	for _, name := range tableNames() {
		stmt := `CREATE TABLE ` + name +
			` (key TEXT PRIMARY KEY, name TEXT UNIQUE, body TEXT NOT NULL) WITHOUT ROWID`
		if _, err := s.write.ExecContext(ctx, stmt); err != nil {
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
	if w.oldest > 0 {
		_, err := q.ExecContext(ctx, `DELETE FROM `+w.table+` WHERE key IN
			(SELECT key FROM `+w.table+` ORDER BY key LIMIT ?)`, w.oldest)
		return err
	}
	if w.body == nil {
		_, err := q.ExecContext(ctx, `DELETE FROM `+w.table+` WHERE key = ?`, w.key)
		return err
	}
	_, err := q.ExecContext(ctx, `INSERT INTO `+w.table+` (key, name, body) VALUES (?, ?, ?)
		ON CONFLICT (key) DO UPDATE SET name = excluded.name, body = excluded.body`,
		w.key, w.name, string(w.body))
	return err
}
