// Package archtest holds the tests that read the code instead of running it.
package archtest

import (
	"bufio"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const root = "drystone.example/drystone/backend/"

// allowed is the architecture (docs/ARCHITECTURE.md). A package may import the
// packages on its line and nothing else of ours; a package without a line, and a
// line without a package, fail the test. A test may import what its package may,
// and the packages named after the bar.
var allowed = map[string]string{
	// level 0
	"model":     "",
	"must":      "",
	"iobuf":     "must",
	"sock":      "",
	"compactor": "",

	"metrics/ringfile": "",
	// level 1
	"pki":          "model must",
	"uring":        "must iobuf",
	"vhost":        "unixsock model must iobuf",
	"nbd":          "sock unixsock model must iobuf",
	"proc":         "model",
	"spool":        "model",
	"fetch":        "model",
	"bundle":       "model",
	"shelf":        "model",
	"unixsock":     "model",
	"virt":         "proc model must",
	"guard":        "proc unixsock model must",
	"placement":    "model",
	"meta/command": "model",
	"api/schema":   "model",
	"console":      "model",
	"block/layout": "model must",
	"cidata":       "must",
	// level 2
	"wire":         "model must pki sock",
	"meta/state":   "meta/command model must",
	"meta/raftlog": "compactor model must",
	"block/disk":   "compactor uring block/layout iobuf model must",
	"metrics":      "metrics/ringfile model must",
	// level 3
	"gossip":       "model must wire",
	"meta":         "meta/command meta/state meta/raftlog wire model must",
	"block/volume": "block/disk block/layout placement iobuf model must",
	"block/device": "block/disk model",
	"block/server": "block/disk block/layout wire sock iobuf model must",
	// level 4
	"auth":    "model",
	"agent":   "bundle unixsock cidata block/volume block/server block/device block/disk block/layout vhost nbd virt console guard proc meta meta/command meta/state wire placement metrics iobuf model must",
	"control": "meta meta/command meta/state wire placement pki gossip model must",
	// level 5
	"api":    "shelf spool fetch api/schema auth console meta/command meta/state metrics unixsock model must",
	"client": "api/schema pki model",
	// level 6 and 7
	"node":          "*",
	"dev/libvirtd":  "proc model",
	"dev":           "dev/libvirtd node client api/schema virt guard proc pki placement model must",
	"cmd/drystoned": "node guard model",
	"cmd/drystone":  "node dev client api/schema virt pki model must",
	"archtest":      "",
	"sim":           "",
}

// testsAlso names what the tests of a package may import beyond its line.
var testsAlso = map[string]string{
	"api":          "client pki",
	"cmd/drystone": "api",
	"sim":          "agent block/volume block/server block/device block/disk meta meta/command meta/state wire iobuf model",
}

// owners names the packages that may import an outside dependency.
var owners = map[string]string{
	"github.com/hashicorp/raft":           "meta meta/raftlog",
	"github.com/hashicorp/serf/serf":      "gossip",
	"github.com/hashicorp/memberlist":     "gossip",
	"github.com/digitalocean/go-libvirt":  "virt",
	"libvirt.org/go/libvirtxml":           "virt",
	"github.com/cockroachdb/pebble/v2":    "compactor block/disk meta/raftlog",
	"modernc.org/sqlite":                  "meta/state",
	"database/sql":                        "meta/state",
	"github.com/danielgtaylor/huma/v2":    "api",
	"github.com/gorilla/websocket":        "api client",
	"github.com/spf13/cobra":              "cmd/drystone cmd/drystoned",
	"github.com/schollz/progressbar/v3":   "cmd/drystone",
	"github.com/shirou/gopsutil/v4/cpu":   "metrics",
	"github.com/shirou/gopsutil/v4/mem":   "metrics",
	"github.com/shirou/gopsutil/v4/net":   "metrics",
	"github.com/shirou/gopsutil/v4/disk":  "metrics",
	"github.com/shirou/gopsutil/v4/host":  "metrics",
	"golang.org/x/crypto/argon2":          "auth",
	"crypto/tls":                          "pki wire api client node",
	"crypto/x509":                         "pki wire api client node",
	"github.com/wailsapp/wails/v2":        "",
	"github.com/zalando/go-keyring":       "",
	"filippo.io/age":                      "",
	"github.com/stretchr/testify/require": "",
}

// base is the package a directory belongs to for the table: its test helpers
// (block/disk/disktest) follow the line of the package they help.
func base(dir string) (name string, helper bool) {
	if parent, last := path.Split(dir); strings.HasSuffix(last, "test") && last != "archtest" {
		return strings.TrimSuffix(parent, "/"), true
	}
	return dir, false
}

func TestImports(t *testing.T) {
	seen := map[string]bool{}
	walk := func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(file) != ".go" {
			return err
		}
		dir, err := filepath.Rel("..", filepath.Dir(file))
		if err != nil {
			return err
		}
		name, helper := base(dir)
		line, known := allowed[name]
		if !known && !seen[name] {
			t.Errorf("%s has no line in the table; decide where it belongs", name)
		}
		seen[name] = true
		test := helper || strings.HasSuffix(file, "_test.go")
		checkFile(t, file, name, line, test)
		return nil
	}
	if err := filepath.WalkDir("..", walk); err != nil {
		t.Fatal(err)
	}
	for name := range allowed {
		if !seen[name] {
			t.Errorf("%s has a line but no package", name)
		}
	}
}

func checkFile(t *testing.T, file, name, line string, test bool) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Error(err)
		return
	}
	may := strings.Fields(line)
	if test {
		may = append(may, strings.Fields(testsAlso[name])...)
	}
	for _, spec := range f.Imports {
		imp, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Error(err)
			continue
		}
		if o, guarded := owners[imp]; guarded && !test && !slices.Contains(strings.Fields(o), name) {
			t.Errorf("%s imports %s, which belongs to %q", file, imp, o)
		}
		dep, ours := strings.CutPrefix(imp, root)
		if !ours {
			continue
		}
		dep, helper := base(dep)
		if helper && !test {
			t.Errorf("%s imports %s, which is for tests", file, imp)
		}
		if dep != name && line != "*" && !slices.Contains(may, dep) {
			t.Errorf("%s imports %s, which its line does not allow", file, dep)
		}
	}
}

// goFiles lists the Go files of the whole repository that people wrote.
func goFiles(t *testing.T) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir("../..", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if n := d.Name(); d.IsDir() && (n == "node_modules" || n == ".git" || n == "bin" || n == "wailsjs" || n == "dist") {
			return filepath.SkipDir
		}
		if !d.IsDir() && path.Ext(file) == ".go" {
			out = append(out, file)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// No file is over 800 lines, no function over 70. A test may be longer: its table
// is data.
func TestSize(t *testing.T) {
	const fileMax = 800
	for _, file := range goFiles(t) {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Error(err)
			continue
		}
		if n := fset.Position(f.End()).Line; n > fileMax {
			t.Errorf("%s has %d lines, over %d", file, n, fileMax)
		}
		for _, decl := range f.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			funcMax := 70
			if strings.HasSuffix(file, "_test.go") {
				funcMax = 125
			}
			from, to := fset.Position(fn.Pos()).Line, fset.Position(fn.End()).Line
			if n := to - from + 1; n > funcMax {
				t.Errorf("%s: %s has %d lines, over %d", fset.Position(fn.Pos()), fn.Name.Name, n, funcMax)
			}
		}
	}
}

// Every package says what it is, once.
func TestPackageComment(t *testing.T) {
	docs := map[string]int{}
	for _, file := range goFiles(t) {
		dir := filepath.Dir(file)
		if _, known := docs[dir]; !known {
			docs[dir] = 0
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Error(err)
			continue
		}
		if f.Doc != nil {
			docs[dir]++
		}
	}
	for dir, n := range docs {
		if n != 1 {
			t.Errorf("%s has %d package comments, want one", dir, n)
		}
	}
}

// Every relative link in the documents leads somewhere.
func TestDocLinks(t *testing.T) {
	docs, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	docs = append(docs, "../../README.md", "../../CHANGELOG.md")
	for _, doc := range docs {
		f, err := os.Open(doc)
		if err != nil {
			t.Error(err)
			continue
		}
		for s := bufio.NewScanner(f); s.Scan(); {
			checkLinks(t, doc, s.Text())
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func checkLinks(t *testing.T, doc, line string) {
	t.Helper()
	for rest := line; ; {
		_, after, found := strings.Cut(rest, "](")
		if !found {
			return
		}
		target, tail, _ := strings.Cut(after, ")")
		rest = tail
		target, _, _ = strings.Cut(target, "#")
		if target == "" || strings.Contains(target, "://") {
			continue
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(doc), target)); err != nil {
			t.Errorf("%s links to %s, which is not there", doc, target)
		}
	}
}
