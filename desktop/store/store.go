// Package store keeps what the desktop app knows of its clusters, in one SQLite
// file: names, addresses, the pin of each cluster's CA, colour and read-only
// switch. It keeps no secret; session tokens are the vault's.
//
// A Store may be used by many goroutines and by several processes at once.
package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // the driver

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/pki"
)

// A Cluster is one the app was introduced to.
type Cluster struct {
	ID        model.ClusterID
	Name      string // as the cluster calls itself
	Color     string // #rrggbb
	ReadOnly  bool   // the gateway refuses changes
	User      string // who logged in last
	Pin       pki.Pin
	Endpoints []string // host:port of every node known, the introducing one first
	Added     time.Time
}

// A Store is an open file.
type Store struct {
	db *sql.DB
}

// versions holds the schema's steps; the file remembers how many it has made.
// A step, once released, is never changed.
var versions = []string{
	`CREATE TABLE clusters (
		id        TEXT PRIMARY KEY,
		name      TEXT NOT NULL,
		color     TEXT NOT NULL,
		read_only INTEGER NOT NULL,
		user      TEXT NOT NULL,
		pin       TEXT NOT NULL,
		endpoints TEXT NOT NULL, -- JSON list
		added     TEXT NOT NULL  -- RFC 3339
	) STRICT`,
}

// Open opens or makes the file. Its folder is made too, for the user alone.
func Open(ctx context.Context, path string) (*Store, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of %s: %w", path, err)
	}
	dsn := url.URL{
		Scheme:   "file",
		OmitHost: true,
		Path:     filepath.ToSlash(path),
		RawQuery: "_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_txlock=immediate",
	}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	s := &Store{db: db}
	if err := s.migrate(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	return s, nil
}

// Close closes the file.
func (s *Store) Close() error { return s.db.Close() }

func (s *Store) migrate(ctx context.Context) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // a no-op after Commit, and the error that led here counts
	var have int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&have); err != nil {
		return fmt.Errorf("read the schema's version: %w", err)
	}
	if have > len(versions) {
		return model.Errorf(model.Conflict,
			"the list of clusters is of a newer app (version %d, this one knows %d)", have, len(versions))
	}
	for v := have; v < len(versions); v++ {
		if _, err := tx.ExecContext(ctx, versions[v]); err != nil {
			return fmt.Errorf("make schema version %d: %w", v+1, err)
		}
	}
	set := fmt.Sprintf("PRAGMA user_version = %d", len(versions))
	if _, err := tx.ExecContext(ctx, set); err != nil {
		return fmt.Errorf("set the schema's version: %w", err)
	}
	return tx.Commit()
}

const columns = "id, name, color, read_only, user, pin, endpoints, added"

// List returns every cluster, in the order they were added.
func (s *Store) List(ctx context.Context) ([]Cluster, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT "+columns+" FROM clusters ORDER BY added, id")
	if err != nil {
		return nil, fmt.Errorf("list clusters: %w", err)
	}
	defer rows.Close()
	list := []Cluster{}
	for rows.Next() {
		c, err := scan(rows.Scan)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list clusters: %w", err)
	}
	return list, nil
}

// Get returns one cluster; a model.NotFound error if it is not there.
func (s *Store) Get(ctx context.Context, id model.ClusterID) (Cluster, error) {
	row := s.db.QueryRowContext(ctx, "SELECT "+columns+" FROM clusters WHERE id = ?", id.String())
	c, err := scan(row.Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return c, model.Errorf(model.NotFound, "this app knows no cluster %s", id)
	}
	return c, err
}

// Put adds a cluster or replaces what is known of it.
func (s *Store) Put(ctx context.Context, c Cluster) error {
	endpoints, err := json.Marshal(c.Endpoints)
	if err != nil {
		return fmt.Errorf("encode the addresses of %s: %w", c.ID, err)
	}
	_, err = s.db.ExecContext(ctx,
		"INSERT OR REPLACE INTO clusters ("+columns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
		c.ID.String(), c.Name, c.Color, c.ReadOnly, c.User, c.Pin.String(), string(endpoints),
		c.Added.UTC().Format(time.RFC3339Nano))
	if err != nil {
		return fmt.Errorf("keep cluster %s: %w", c.ID, err)
	}
	return nil
}

// Update changes one cluster by a function, in one transaction.
func (s *Store) Update(ctx context.Context, id model.ClusterID, change func(*Cluster)) (Cluster, error) {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return Cluster{}, fmt.Errorf("change cluster %s: %w", id, err)
	}
	defer tx.Rollback() //nolint:errcheck // a no-op after Commit, and the error that led here counts
	row := tx.QueryRowContext(ctx, "SELECT "+columns+" FROM clusters WHERE id = ?", id.String())
	c, err := scan(row.Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return c, model.Errorf(model.NotFound, "this app knows no cluster %s", id)
	}
	if err != nil {
		return c, err
	}
	change(&c)
	endpoints, err := json.Marshal(c.Endpoints)
	if err != nil {
		return c, fmt.Errorf("encode the addresses of %s: %w", id, err)
	}
	_, err = tx.ExecContext(ctx,
		"UPDATE clusters SET name = ?, color = ?, read_only = ?, user = ?, pin = ?, endpoints = ? WHERE id = ?",
		c.Name, c.Color, c.ReadOnly, c.User, c.Pin.String(), string(endpoints), id.String())
	if err != nil {
		return c, fmt.Errorf("change cluster %s: %w", id, err)
	}
	if err := tx.Commit(); err != nil {
		return c, fmt.Errorf("change cluster %s: %w", id, err)
	}
	return c, nil
}

// Delete forgets a cluster; one that is not there is no error.
func (s *Store) Delete(ctx context.Context, id model.ClusterID) error {
	if _, err := s.db.ExecContext(ctx, "DELETE FROM clusters WHERE id = ?", id.String()); err != nil {
		return fmt.Errorf("forget cluster %s: %w", id, err)
	}
	return nil
}

func scan(into func(...any) error) (Cluster, error) {
	var c Cluster
	var id, pin, endpoints, added string
	err := into(&id, &c.Name, &c.Color, &c.ReadOnly, &c.User, &pin, &endpoints, &added)
	if err != nil {
		return c, fmt.Errorf("read a cluster: %w", err)
	}
	if err := c.ID.UnmarshalText([]byte(id)); err != nil {
		return c, fmt.Errorf("read a cluster: %w", err)
	}
	if c.Pin, err = pki.ParsePin(pin); err != nil {
		return c, fmt.Errorf("read cluster %s: %w", id, err)
	}
	if err := json.Unmarshal([]byte(endpoints), &c.Endpoints); err != nil {
		return c, fmt.Errorf("read the addresses of %s: %w", id, err)
	}
	if c.Added, err = time.Parse(time.RFC3339Nano, added); err != nil {
		return c, fmt.Errorf("read when %s was added: %w", id, err)
	}
	return c, nil
}
