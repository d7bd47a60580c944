package state

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// MaxAudit is how many rows of the audit log are kept at least; up to auditSlack
// more wait to be cut together.
const (
	MaxAudit   = 50_000
	auditSlack = 1_000
)

// An auditTail is where the chain of the audit log stands.
type auditTail struct {
	hash  string // of the newest row
	count int
}

// add makes the row of one command, and cuts the oldest ones when there are too
// many. What is cut is a function of the rows alone, so every node cuts alike.
func (a *auditTail) add(index uint64, e command.Envelope, object string, refusal error) ([]write, error) {
	row := model.AuditRow{
		Index: index, Time: e.At, Actor: e.Actor, Verb: e.Command.Kind().String(),
		Object: object, Result: "ok",
	}
	if refusal != nil {
		row.Result = string(model.CodeOf(refusal)) + ": " + refusal.Error()
	}
	var err error
	if row.Hash, err = ChainHash(a.hash, row); err != nil {
		return nil, err
	}
	body, err := json.Marshal(row)
	if err != nil {
		return nil, fmt.Errorf("encode an audit row: %w", err)
	}
	a.hash = row.Hash
	a.count++
	out := []write{{table: auditTable, key: auditKey(index), body: body}}
	if a.count > MaxAudit+auditSlack {
		a.count -= auditSlack
		out = append(out, write{table: auditTable, oldest: auditSlack})
	}
	return out, nil
}

// auditKey sorts as the index does.
func auditKey(index uint64) string { return fmt.Sprintf("%020d", index) }

// ChainHash is the hash of an audit row that follows one whose hash is before.
// The row's own Hash is not part of it.
func ChainHash(before string, row model.AuditRow) (string, error) {
	row.Hash = ""
	text, err := json.Marshal(row)
	if err != nil {
		return "", fmt.Errorf("encode an audit row: %w", err)
	}
	h := sha256.New()
	h.Write([]byte(before))
	h.Write(text)
	return hex.EncodeToString(h.Sum(nil)), nil
}

// VerifyAudit checks the chain of rows that follow each other in the log. The
// first one is taken at its word: its predecessor may have been cut.
func VerifyAudit(rows []model.AuditRow) error {
	for i := 1; i < len(rows); i++ {
		want, err := ChainHash(rows[i-1].Hash, rows[i])
		if err != nil {
			return err
		}
		if rows[i].Hash != want {
			return model.Errorf(model.Corrupt, "audit row %d does not follow row %d: the log was altered",
				rows[i].Index, rows[i-1].Index)
		}
	}
	return nil
}

// audit reads rows with after < index <= last.
func (s *Store) audit(ctx context.Context, after, last uint64, limit int) ([]model.AuditRow, error) {
	return s.auditRows(ctx, `SELECT body FROM audit WHERE key > ? AND key <= ? ORDER BY key LIMIT ?`,
		auditKey(after), auditKey(last), limit)
}

// newestAudit reads the last rows with index <= last, newest first.
func (s *Store) newestAudit(ctx context.Context, last uint64, limit int) ([]model.AuditRow, error) {
	return s.auditRows(ctx, `SELECT body FROM audit WHERE key <= ? ORDER BY key DESC LIMIT ?`,
		auditKey(last), limit)
}

func (s *Store) auditRows(ctx context.Context, query string, args ...any) (out []model.AuditRow, err error) {
	rows, err := s.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var body string
		if err := rows.Scan(&body); err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		var row model.AuditRow
		if err := json.Unmarshal([]byte(body), &row); err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		out = append(out, row)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	return out, nil
}
