// Package packaging holds what a release is packed by.
package packaging_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// wanted returns the packages of one section of build/packages.txt.
func wanted(t *testing.T, section string) []string {
	t.Helper()
	var out []string
	for line := range strings.Lines(read(t, "../build/packages.txt")) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == section {
			out = append(out, f[1])
		}
	}
	return out
}

// depends returns the packages that a package asks for.
func depends(t *testing.T, name string) []string {
	t.Helper()
	_, after, ok := strings.Cut(read(t, name), "\ndepends:\n")
	if !ok {
		t.Fatalf("%s has no depends", name)
	}
	var out []string
	for line := range strings.Lines(after) {
		p, ok := strings.CutPrefix(line, "  - ")
		if !ok {
			break
		}
		out = append(out, strings.TrimSpace(p))
	}
	return out
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A node is installed with what the one list of packages says that it needs.
func TestNodeDepends(t *testing.T) {
	if diff := cmp.Diff(wanted(t, "run"), depends(t, "node.yaml")); diff != "" {
		t.Errorf("build/packages.txt (-) and node.yaml (+) differ:\n%s", diff)
	}
}

// The desktop app is installed with the libraries that it is built with.
func TestDesktopDepends(t *testing.T) {
	built := " " + strings.Join(wanted(t, "build"), " ") + " "
	for _, p := range depends(t, "desktop.yaml") {
		dev := strings.TrimSuffix(p, "-0") + "-dev"
		if !strings.Contains(built, " "+dev+" ") {
			t.Errorf("desktop.yaml asks for %s, but nothing is built with %s", p, dev)
		}
	}
}
