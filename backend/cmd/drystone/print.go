package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/model"
)

// show prints an object: as the API has it with --json, and otherwise the way
// human writes it.
func show[T any](a *app, v T, human func(w io.Writer, v T)) error {
	if a.json {
		e := json.NewEncoder(a.out)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		if err := e.Encode(v); err != nil {
			return fmt.Errorf("print: %w", err)
		}
		return nil
	}
	w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	human(w, v)
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// say writes for a person. That nobody can read it is found when the table is
// flushed, or is nothing that could be told to anybody.
func say(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }

// letGo closes what was only read.
func letGo(c io.Closer) { _ = c.Close() }

// list prints a list as a table of one row per item.
func list[T any](a *app, l schema.List[T], none, header string, row func(T) []string) error {
	return show(a, l, func(w io.Writer, l schema.List[T]) {
		if len(l.Items) == 0 {
			say(w, "%s\n", none)
			return
		}
		say(w, "%s\n", strings.ReplaceAll(header, " ", "\t"))
		for _, item := range l.Items {
			say(w, "%s\n", strings.Join(row(item), "\t"))
		}
	})
}

// fields prints pairs of a name and a value, one to a line; empty values are left
// out.
func fields(w io.Writer, pairs ...string) {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			say(w, "%s:\t%s\n", pairs[i], pairs[i+1])
		}
	}
}

// said prints a sentence about something done, but not where a program reads.
func (a *app) said(format string, args ...any) {
	if !a.json {
		say(a.out, format+"\n", args...)
	}
}

var units = []string{"KiB", "MiB", "GiB", "TiB", "PiB"}

// size writes bytes for a person: exactly where that is short, else with one digit.
func size(b model.Bytes) string {
	if b < 1<<10 {
		return strconv.FormatInt(int64(b), 10) + " B"
	}
	v, i := float64(b)/1024, 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	text := strconv.FormatFloat(v, 'f', 1, 64)
	return strings.TrimSuffix(text, ".0") + " " + units[i]
}

// parseSize reads a size such as 512M, 10G, 1.5T, 4096 or 10GiB; the units are
// powers of 1024.
func parseSize(text string) (model.Bytes, error) {
	bad := func() error {
		return usagef("%q is not a size; write one as 512M, 10G or 1T, or in bytes", text)
	}
	number := strings.ToUpper(strings.TrimSpace(text))
	number = strings.TrimSuffix(strings.TrimSuffix(number, "IB"), "B")
	shift := 0
	if n := len(number); n > 0 {
		if i := strings.IndexByte("KMGTP", number[n-1]); i >= 0 {
			shift, number = 10*(i+1), number[:n-1]
		}
	}
	if whole, err := strconv.ParseInt(number, 10, 64); err == nil {
		if whole < 0 || whole > int64(model.MaxVolumeSize)<<4>>shift {
			return 0, bad()
		}
		return model.Bytes(whole << shift), nil
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || !strings.ContainsRune(number, '.') || shift == 0 || v < 0 || v > 1<<20 {
		return 0, bad()
	}
	return model.Bytes(v*float64(int64(1)<<shift)) / 512 * 512, nil
}

// ago writes how long ago a moment was.
func ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(max(d, 0).Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// dash stands for nothing in a table, so that columns stay apart.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
