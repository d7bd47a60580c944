// Package desktop opens the desktop app's own window, Wails and all, over two real
// clusters. It is run by run.sh, which provides clusters, screen and session bus.
package desktop_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// A cluster that run.sh has started, as its cluster.json tells.
type cluster struct {
	name string
	dir  string

	API      string `json:"api"`
	User     string `json:"user"`
	Password string `json:"password"`
}

func load(t *testing.T, dir, name string) cluster {
	t.Helper()
	c := cluster{name: name, dir: filepath.Join(dir, name)}
	text, err := os.ReadFile(filepath.Join(c.dir, "cluster.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// drystone runs the command line on a cluster.
func (c cluster) drystone(t *testing.T, args ...string) string {
	t.Helper()
	args = append([]string{"--dir", c.dir}, args...)
	out, err := exec.CommandContext(t.Context(), "bin/drystone", args...).Output()
	if err != nil {
		t.Fatalf("drystone %s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}

// shown is what `drystone cert show` prints behind a word.
func (c cluster) shown(t *testing.T, word string) string {
	t.Helper()
	for line := range strings.Lines(c.drystone(t, "cert", "show")) {
		if rest, ok := strings.CutPrefix(line, word+":"); ok {
			return strings.TrimSpace(rest)
		}
	}
	t.Fatalf("drystone cert show prints no %q", word)
	return ""
}

// open starts the app; the returned function ends it as the system would.
func open(t *testing.T, dir string) (quit func()) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(dir, "app.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "bin/drystone-desktop",
		"--dir", filepath.Join(dir, "app"), "--passphrase-file", filepath.Join(dir, "passphrase"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	quit = func() {
		if ended {
			return
		}
		ended = true
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("the app is gone: %v", err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the app ended with %v", err)
		}
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(quit)
	return quit
}

// A person adds one cluster by its join string and one by its address, comparing
// the fingerprint, sees both side by side and live, and sees a node die within
// seconds. After the next start both are there without another log-in.
func TestTwoClusters(t *testing.T) {
	dir := os.Getenv("DRYSTONE_DESKTOP_TEST")
	if dir == "" {
		t.Fatal("there are no clusters: run tests/desktop/run.sh")
	}
	t.Chdir("../..")
	oslo, bergen := load(t, dir, "oslo"), load(t, dir, "bergen")
	s := openScreen(t)
	quit := open(t, dir)

	s.read("No cluster yet")
	s.click(button, "Add a cluster")
	s.enter(entry, "Address or join string", oslo.shown(t, "Join string"))
	s.click(button, "Next")
	s.read("The join string names this cluster’s CA")
	s.logIn(oslo, "Green", "Add cluster")

	s.click(button, "Add a cluster")
	s.enter(entry, "Address or join string", bergen.API)
	s.click(button, "Next")
	s.await("the fingerprint that the node prints", func(top thing) (thing, bool) {
		said := strings.Join(strings.Fields(top.words()), "")
		return top, strings.Contains(said, bergen.shown(t, "Fingerprint"))
	})
	s.logIn(bergen, "Blue", "It is the same, add cluster")

	s.card("oslo", "3 / 3", "1 / 1")
	s.card("bergen", "2 / 2", "1 / 1")
	s.sideBySide()

	bergen.drystone(t, "dev", "kill", "node2")
	s.card("bergen", "1 / 2", "1 node is away.")
	s.card("oslo", "3 / 3", "1 / 1")

	quit()
	open(t, dir)
	s.moves(s.card("bergen", "1 / 2"))
	s.moves(s.card("oslo", "3 / 3", "1 / 1"))
}

// logIn fills the second step of adding a cluster.
func (s *screen) logIn(c cluster, color, confirm string) {
	s.t.Helper()
	s.click(radio, color)
	s.enter(entry, "Name", c.User)
	s.enter(password, "Password", c.Password)
	s.click(button, confirm)
	s.see(link, c.name)
}

// card waits until a cluster's card says something.
func (s *screen) card(name string, says ...string) thing {
	s.t.Helper()
	return s.await("the card of "+name+" with "+strings.Join(says, ", "), func(top thing) (thing, bool) {
		for _, o := range top.all() {
			if _, is := o.find(link, name); o.role != article || !is {
				continue
			}
			words := o.words()
			return o, !slices.ContainsFunc(says, func(w string) bool { return !strings.Contains(words, w) })
		}
		return thing{}, false
	})
}

// moves waits until the picture of a card's IOPS changes: its numbers only come by
// the cluster's live stream.
func (s *screen) moves(card thing) {
	s.t.Helper()
	chart, ok := card.find(picture, "IOPS")
	if !ok {
		s.t.Fatalf("the card has no chart of IOPS: %s", card.outline(""))
	}
	at := s.place(chart)
	before := crop(s.shoot("tests/results/desktop-before.png"), at)
	s.await("a change of the chart", func(top thing) (thing, bool) {
		return top, !slices.Equal(before, crop(s.shoot("tests/results/desktop-after.png"), at))
	})
}

// sideBySide looks at what is drawn: two cards in one row, each in its colour.
func (s *screen) sideBySide() {
	s.t.Helper()
	s.await("the end of the notes", func(top thing) (thing, bool) {
		return top, !strings.Contains(top.words(), "was added")
	})
	img := s.shoot("tests/results/desktop.png")
	s.moves(s.card("oslo"))
	s.moves(s.card("bergen"))
	oslo := s.place(s.card("oslo"))
	bergen := s.place(s.card("bergen"))
	if oslo.Min.Y != bergen.Min.Y || oslo.Max.X > bergen.Min.X || !bergen.In(img.Bounds()) {
		s.t.Errorf("the cards are at %v and %v of %v", oslo, bergen, img.Bounds())
	}
	if got := shade(img, (oslo.Min.X+oslo.Max.X)/2, oslo.Min.Y+1); got != "#188379" {
		s.t.Errorf("the card of oslo is tagged %s, want green", got)
	}
	if got := shade(img, (bergen.Min.X+bergen.Max.X)/2, bergen.Min.Y+1); got != "#1c7ed6" {
		s.t.Errorf("the card of bergen is tagged %s, want blue", got)
	}
}
