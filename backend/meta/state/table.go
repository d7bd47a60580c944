package state

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"

	"drystone.example/drystone/backend/model"
)

// A table is one kind of rows, decoded. Once a View has it, it does not change.
type table[K cmp.Ordered, V any] struct {
	kind  *kind[K, V]
	rows  map[K]V
	names map[string]K // of tables whose rows have unique names

	once    sync.Once // makes inOrder when it is first asked for
	inOrder []V
}

// A kind is what is the same for every state of a table: how its rows are kept
// in SQLite, which of them are the same to a person, and their order.
type kind[K cmp.Ordered, V any] struct {
	name  string         // of the SQL table, and the plural of the noun
	noun  string         // in errors
	watch Noun           // what changes when a row does; empty: nothing one can watch
	key   func(V) K      // of a row
	title func(V) string // its unique name; nil: rows have none
	text  func(K) string // the key in SQLite
	order func(a, b V) int
}

func newTable[K cmp.Ordered, V any](k *kind[K, V]) *table[K, V] {
	return &table[K, V]{kind: k, rows: map[K]V{}, names: map[string]K{}}
}

// clone returns a table of the same rows that may be changed.
func (t *table[K, V]) clone() *table[K, V] {
	return &table[K, V]{kind: t.kind, rows: maps.Clone(t.rows), names: maps.Clone(t.names)}
}

func (t *table[K, V]) get(key K) (V, bool) {
	row, ok := t.rows[key]
	return row, ok
}

// find is get with the error a person reads.
func (t *table[K, V]) find(key K) (V, error) {
	row, ok := t.rows[key]
	if !ok {
		return row, model.Errorf(model.NotFound, "there is no %s %s", t.kind.noun, t.kind.text(key))
	}
	return row, nil
}

// resolve finds a row by what a person gave: an identifier, or else a name.
func resolve[K interface {
	~uint64
	cmp.Ordered
}, V any](t *table[K, V], ref string) (V, error) {
	if id, err := model.ParseID[K](ref); err == nil {
		if row, ok := t.rows[id]; ok {
			return row, nil
		}
	}
	if key, ok := t.names[strings.ToLower(ref)]; ok {
		return t.rows[key], nil
	}
	var none V
	return none, model.Errorf(model.NotFound, "there is no %s %q", t.kind.noun, ref)
}

// keys returns the keys in order, so that what is done to each row is done in
// the same order on every node.
func (t *table[K, V]) keys() []K { return slices.Sorted(maps.Keys(t.rows)) }

// sorted returns the rows in their order; the slice is shared. It is for a View: a row
// that is put later is not in it.
func (t *table[K, V]) sorted() []V {
	t.once.Do(func() {
		t.inOrder = slices.SortedFunc(maps.Values(t.rows), t.kind.order)
	})
	return t.inOrder
}

// put and drop change a table that no View has yet.
func (t *table[K, V]) put(row V) {
	key := t.kind.key(row)
	t.drop(key)
	t.rows[key] = row
	if t.kind.title != nil {
		t.names[strings.ToLower(t.kind.title(row))] = key
	}
}

func (t *table[K, V]) drop(key K) {
	old, ok := t.rows[key]
	if !ok {
		return
	}
	delete(t.rows, key)
	if t.kind.title != nil {
		delete(t.names, strings.ToLower(t.kind.title(old)))
	}
}
