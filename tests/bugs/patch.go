package main

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
)

// A bug is one planted mistake: a header of lines "key: value", then a unified diff
// against the tree.
type bug struct {
	name  string
	rule  string   // what is left out, in the words of the rule
	hole  string   // of the design (H1 to H29), or "-"
	level string   // L1 to L5, as in docs/TESTING.md
	test  []string // the package and flags of the test that must catch it
	edits []edit
}

// An edit is one hunk. It names no line: what it replaces must be in the file once,
// so that it neither depends on what is changed elsewhere nor lands in the wrong place.
type edit struct {
	file     string // relative to the tree's root
	old, new string
}

// readBugs reads every patch in a folder, in order of their names.
func readBugs(dir fs.FS) ([]bug, error) {
	files, err := fs.Glob(dir, "*.patch")
	if err != nil {
		return nil, fmt.Errorf("list patches: %w", err)
	}
	slices.Sort(files)
	var out []bug
	var errs []error
	for _, file := range files {
		text, err := fs.ReadFile(dir, file)
		if err != nil {
			return nil, fmt.Errorf("read patch: %w", err)
		}
		b, err := parseBug(strings.TrimSuffix(file, ".patch"), string(text))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", file, err))
			continue
		}
		out = append(out, b)
	}
	return out, errors.Join(errs...)
}

var levels = regexp.MustCompile(`^L[1-5]$`)

func parseBug(name, text string) (bug, error) {
	b := bug{name: name}
	header, diff, ok := strings.Cut(text, "\n--- ")
	if !ok {
		return b, errors.New("there is no diff")
	}
	for line := range strings.Lines(header) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch key {
		case "rule":
			b.rule = value
		case "hole":
			b.hole = value
		case "level":
			b.level = value
		case "test":
			b.test = strings.Fields(value)
		default:
			return b, fmt.Errorf("the header says %q", line)
		}
	}
	if b.rule == "" || b.hole == "" || !levels.MatchString(b.level) || len(b.test) < 3 {
		return b, errors.New("the header names rule, hole, level and test (package -run pattern)")
	}
	var err error
	b.edits, err = parseDiff("--- " + diff)
	return b, err
}

func parseDiff(diff string) (edits []edit, err error) {
	file := ""
	var at *edit
	for line := range strings.Lines(diff) {
		body, rest := line[:1], line[1:]
		switch {
		case strings.HasPrefix(line, "--- "):
		case strings.HasPrefix(line, "+++ "):
			file = strings.TrimPrefix(strings.TrimSpace(line[4:]), "b/")
		case strings.HasPrefix(line, "@@"):
			edits = append(edits, edit{file: file})
			at = &edits[len(edits)-1]
		case at == nil:
			return nil, fmt.Errorf("the diff has %q before its first hunk", line)
		case body == " ":
			at.old, at.new = at.old+rest, at.new+rest
		case body == "-":
			at.old += rest
		case body == "+":
			at.new += rest
		default:
			return nil, fmt.Errorf("the diff has a line %q", line)
		}
	}
	for _, e := range edits {
		if e.file == "" || e.old == "" || e.old == e.new {
			return nil, errors.New("a hunk names no file or changes nothing")
		}
	}
	return edits, nil
}

// plant returns the files of a tree that are changed, by their names.
func (b *bug) plant(tree fs.FS) (map[string]string, error) {
	out := map[string]string{}
	for _, e := range b.edits {
		text, seen := out[e.file]
		if !seen {
			got, err := fs.ReadFile(tree, e.file)
			if err != nil {
				return nil, fmt.Errorf("does not apply: %w", err)
			}
			text = string(got)
		}
		if n := strings.Count("\n"+text, "\n"+e.old); n != 1 {
			return nil, fmt.Errorf("does not apply: %s has %d places for a hunk, not one:\n%s", e.file, n, e.old)
		}
		out[e.file] = strings.Replace("\n"+text, "\n"+e.old, "\n"+e.new, 1)[1:]
	}
	return out, nil
}
