package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Every patch fits the tree as it is now, and names a test that is there. (That the
// test catches it takes longer to say: make bugs.)
func TestBugsFit(t *testing.T) {
	const root = "../.."
	bugs, err := readBugs(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	if len(bugs) < 40 {
		t.Errorf("only %d mistakes", len(bugs))
	}
	hole := regexp.MustCompile(`^(-|H[1-9][0-9]?)$`)
	for _, b := range bugs {
		if _, err := b.plant(os.DirFS(root)); err != nil {
			t.Errorf("%s %v", b.name, err)
		}
		if !hole.MatchString(b.hole) {
			t.Errorf("%s is of hole %q", b.name, b.hole)
		}
		if !hasTest(t, filepath.Join(root, b.test[0]), b.test[1:]) {
			t.Errorf("%s: there is no test %v", b.name, b.test)
		}
	}
}

// hasTest reports whether flags are -run with the whole name of a test of a package.
func hasTest(t *testing.T, dir string, flags []string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	name, whole := strings.CutSuffix(flags[1], "$")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if whole && flags[0] == "-run" && bytes.Contains(text, []byte("\nfunc "+name+"(t *testing.T)")) {
			return true
		}
	}
	return false
}

const someDiff = `rule: a half is a half
hole: H1
level: L1
test: . -run TestHalf$ -short
--- a/half.go
+++ b/half.go
@@ -3,3 +3,3 @@
 // Half returns it.
-func Half(n int) int { return n / 2 }
+func Half(n int) int { return n / 3 }
`

func TestParse(t *testing.T) {
	got, err := parseBug("x", someDiff)
	want := bug{
		name: "x", rule: "a half is a half", hole: "H1", level: "L1",
		test: []string{".", "-run", "TestHalf$", "-short"},
		edits: []edit{{
			file: "half.go",
			old:  "// Half returns it.\nfunc Half(n int) int { return n / 2 }\n",
			new:  "// Half returns it.\nfunc Half(n int) int { return n / 3 }\n",
		}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(bug{}, edit{})); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	for name, from := range map[string]string{
		"no level":        "level: L1\n",
		"no rule":         "rule: a half is a half\n",
		"no pattern":      " -run TestHalf$ -short",
		"no change":       "+func Half(n int) int { return n / 3 }\n",
		"no hunk":         "@@ -3,3 +3,3 @@\n",
		"a header's line": "hole: H1",
	} {
		to := ""
		switch name {
		case "no change":
			to = "+func Half(n int) int { return n / 2 }\n"
		case "a header's line":
			to = "whole: H1"
		}
		if _, err := parseBug("x", strings.Replace(someDiff, from, to, 1)); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
}

// A run says of each mistake what became of it, and fails if one was not caught, for
// whatever reason.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{
		"go.mod":       "module half\n\ngo 1.26\n",
		"half.go":      "package half\n\n// Half returns it.\nfunc Half(n int) int { return n / 2 }\n",
		"half_test.go": "package half\n\nimport \"testing\"\n\nfunc TestHalf(t *testing.T) {\n\tif n := Half(4); n != 2 {\n\t\tt.Errorf(\"half of 4 is %d\", n)\n\t}\n}\n",

		"bugs/caught.patch":  someDiff,
		"bugs/unseen.patch":  strings.Replace(someDiff, "n / 3", "(n + 1) / 2", 1),
		"bugs/broken.patch":  strings.Replace(someDiff, "n / 3", "m / 3", 1),
		"bugs/crashes.patch": strings.Replace(someDiff, "n / 3", "n / (n - 4)", 1),
		"bugs/foreign.patch": strings.Replace(someDiff, "{ return n / 2 }", "{ return n * 2 }", 1),
	}
	if err := os.Mkdir(filepath.Join(dir, "bugs"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	var out bytes.Buffer
	err := run(t.Context(), []string{"-dir", "bugs", "-jobs", "1"}, &out)
	if err == nil || !strings.Contains(err.Error(), "not caught: broken, crashes, foreign, unseen") {
		t.Errorf("run = %v\n%s", err, &out)
	}
	for name, want := range map[string]string{
		"caught": " TestHalf: half of 4 is 1", "unseen": "passes", "broken": "does not compile",
		"crashes": "it crashes: panic: runtime error", "foreign": "does not apply",
	} {
		line := regexp.MustCompile(`(?m)^` + name + ` .*$`).FindString(out.String())
		if !strings.Contains(line, want) || strings.Contains(line, "NOT CAUGHT") != (name != "caught") {
			t.Errorf("of %s it says %q", name, line)
		}
	}
	if err := run(t.Context(), []string{"-dir", "bugs", "-run", "^caught$"}, &out); err != nil {
		t.Errorf("with the one that is caught: %v", err)
	}
	if err := run(t.Context(), []string{"-dir", "bugs", "-run", "nothing"}, &out); err == nil {
		t.Error("a run of nothing is a success")
	}
}

// What is no judgement does not count as one.
func TestJudge(t *testing.T) {
	say := func(test, text string) string {
		return `{"Action":"output","Test":"` + test + `","Output":"` + text + `\n"}` + "\n"
	}
	failed := `{"Action":"fail","Test":"TestX/a"}` + "\n" + `{"Action":"fail","Test":"TestX"}` + "\n"
	for _, c := range []struct {
		name, events string
		want         result
	}{
		{"a pass", `{"Action":"pass","Test":"TestX"}`, result{passed: true}},
		{"nothing ran", `{"Action":"pass"}`, result{}},
		{
			"a failure", say("TestX/a", "    x_test.go:7: it is 3") + say("TestX/a", "    x_test.go:8: and 4") + failed,
			result{failed: "TestX/a", reason: "it is 3"},
		},
		{
			"an assertion", `{"Action":"run","Test":"TestX"}` + "\n" + say("", "panic: must: it was 3"),
			result{failed: "TestX", reason: "panic: must: it was 3"},
		},
		{"a time-out", say("TestX", "panic: test timed out after 5m0s") + failed, result{hung: true, failed: "TestX/a"}},
		{"a crash", say("TestX", "panic: runtime error") + failed, result{crash: "panic: runtime error", failed: "TestX/a"}},
		{"a mistake in it", `{"Action":"build-output","Output":"# x\n"}` + "\n" + `{"Action":"build-output","Output":"x.go:3: no\n"}`, result{broken: "x.go:3: no"}},
	} {
		got := judge(strings.NewReader(c.events))
		if diff := cmp.Diff(&c.want, got, cmp.AllowUnexported(result{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}
