package desktop_test

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/godbus/dbus/v5"
)

const (
	patience = 45 * time.Second // for what has to appear
	registry = "org.a11y.atspi.Registry"
	root     = dbus.ObjectPath("/org/a11y/atspi/accessible/root")
	element  = "org.a11y.atspi.Accessible"
)

// A role is what an element is, as AT-SPI numbers them.
type role uint32

const (
	filler   role = 20
	picture  role = 27
	password role = 40
	button   role = 43
	radio    role = 44
	entry    role = 79
	link     role = 88
	article  role = 109
)

// A screen is seen through the accessibility bus, as by a screen reader, and used
// by mouse and keyboard.
type screen struct {
	t    *testing.T
	conn *dbus.Conn
}

// openScreen connects to the accessibility bus of the session.
func openScreen(t *testing.T) *screen {
	t.Helper()
	session, err := dbus.ConnectSessionBus()
	if err != nil {
		t.Fatalf("session bus: %v (run tests/desktop/run.sh)", err)
	}
	var address string
	err = errors.Join(
		session.Object("org.a11y.Bus", "/org/a11y/bus").Call("org.a11y.Bus.GetAddress", 0).Store(&address),
		session.Close())
	if err != nil {
		t.Fatalf("accessibility bus: %v", err)
	}
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatalf("accessibility bus: %v", err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return &screen{t: t, conn: conn}
}

// A thing is one element of the window.
type thing struct {
	Bus  string
	Path dbus.ObjectPath

	role       role
	name, text string
	inside     []thing
}

// call asks one element something; it may have gone meanwhile.
func (s *screen) call(o thing, method string, out any, args ...any) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	return s.conn.Object(o.Bus, o.Path).CallWithContext(ctx, method, 0, args...).Store(out)
}

// look reads everything on the screen, from the outermost in.
func (s *screen) look() (thing, error) {
	top := thing{Bus: registry, Path: root}
	err := s.fill(&top, 0)
	return top, err
}

func (s *screen) fill(o *thing, depth int) error {
	if depth > 60 {
		return errors.New("the window is too deep")
	}
	var name dbus.Variant
	err := errors.Join(
		s.call(*o, element+".GetRole", &o.role),
		s.call(*o, "org.freedesktop.DBus.Properties.Get", &name, element, "Name"))
	if err != nil {
		return err
	}
	o.name, _ = name.Value().(string)
	// Not everything has text of its own.
	if s.call(*o, "org.a11y.atspi.Text.GetText", &o.text, int32(0), int32(-1)) != nil {
		o.text = ""
	}
	if err := s.call(*o, element+".GetChildren", &o.inside); err != nil {
		return err
	}
	if len(o.inside) == 0 && o.role == filler {
		// GTK does not list the page, which another process draws, but has it.
		var page thing
		if s.call(*o, element+".GetChildAtIndex", &page, int32(0)) == nil && page.Path != "/org/a11y/atspi/null" {
			o.inside = []thing{page}
		}
	}
	for i := range o.inside {
		if err := s.fill(&o.inside[i], depth+1); err != nil {
			return err
		}
	}
	return nil
}

// all lists o and what is inside it, as it is read.
func (o thing) all() []thing {
	out := []thing{o}
	for _, i := range o.inside {
		out = append(out, i.all()...)
	}
	return out
}

// words is what o and what is inside it say.
func (o thing) words() string {
	var b strings.Builder
	for _, x := range o.all() {
		if said := strings.TrimSpace(strings.ReplaceAll(x.text, "\ufffc", " ")); said != "" {
			b.WriteString(said + "\n")
		} else if x.name != "" {
			b.WriteString(x.name + "\n")
		}
	}
	return b.String()
}

// outline is every element with its role, for who reads a failure.
func (o thing) outline(indent string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s%d %q %q\n", indent, o.role, o.name, o.text)
	for _, i := range o.inside {
		b.WriteString(i.outline(indent + " "))
	}
	return b.String()
}

// find returns the first element inside o of a role and a name.
func (o thing) find(is role, name string) (thing, bool) {
	all := o.all()
	i := slices.IndexFunc(all, func(x thing) bool { return x.role == is && x.name == name })
	if i < 0 {
		return thing{}, false
	}
	return all[i], true
}

// await looks until something is so, and returns what get found then.
func (s *screen) await(what string, get func(thing) (thing, bool)) thing {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	var top thing
	var err error
	for time.Now().Before(deadline) {
		if top, err = s.look(); err == nil { // what is drawn anew meanwhile is read again
			if found, ok := get(top); ok {
				return found
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.shoot("tests/results/desktop-failed.png")
	s.t.Fatalf("%s did not appear in %v (%v); the screen shows:\n%s", what, patience, err, top.outline(""))
	return thing{}
}

// see waits for an element.
func (s *screen) see(is role, name string) thing {
	s.t.Helper()
	return s.await(strconv.Quote(name), func(top thing) (thing, bool) { return top.find(is, name) })
}

// read waits for words anywhere in the window.
func (s *screen) read(words string) {
	s.t.Helper()
	s.await(strconv.Quote(words), func(top thing) (thing, bool) {
		return top, strings.Contains(top.words(), words)
	})
}

// place is where an element is drawn.
func (s *screen) place(o thing) image.Rectangle {
	s.t.Helper()
	var at struct{ X, Y, W, H int32 }
	if err := s.call(o, "org.a11y.atspi.Component.GetExtents", &at, uint32(0)); err != nil {
		s.t.Fatalf("where is %q: %v", o.name, err)
	}
	return image.Rect(int(at.X), int(at.Y), int(at.X+at.W), int(at.Y+at.H))
}

// click waits for an element and clicks into its middle, once it stands still.
func (s *screen) click(is role, name string) {
	s.t.Helper()
	var last image.Rectangle
	s.await(strconv.Quote(name)+" at rest", func(top thing) (thing, bool) {
		o, ok := top.find(is, name)
		if !ok {
			return o, false
		}
		now := s.place(o)
		rests := now == last && !now.Empty()
		last = now
		return o, rests
	})
	x, y := (last.Min.X+last.Max.X)/2, (last.Min.Y+last.Max.Y)/2
	s.hand("mousemove", strconv.Itoa(x), strconv.Itoa(y), "click", "1")
}

// enter clicks into a field, empties it, types, and waits until it is all there:
// the page takes keys one by one, and a click may overtake them.
func (s *screen) enter(field role, name, text string) {
	s.t.Helper()
	s.click(field, name)
	s.hand("key", "ctrl+a")
	s.hand("type", "--delay", "3", text)
	s.await("what was typed into "+strconv.Quote(name), func(top thing) (thing, bool) {
		o, ok := top.find(field, name)
		if field == password { // it shows dots
			return o, ok && utf8.RuneCountInString(o.text) == utf8.RuneCountInString(text)
		}
		return o, ok && o.text == text
	})
}

// hand moves mouse and keyboard.
func (s *screen) hand(args ...string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "xdotool", args...).CombinedOutput(); err != nil {
		s.t.Fatalf("xdotool %s: %v %s", args[0], err, out)
	}
}

// shoot keeps what is on the screen in a file and returns it.
func (s *screen) shoot(path string) image.Image {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), patience)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "import", "-window", "root", path).CombinedOutput(); err != nil {
		s.t.Fatalf("picture: %v %s", err, out)
	}
	f, err := os.Open(path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			s.t.Error(err)
		}
	}()
	img, err := png.Decode(f)
	if err != nil {
		s.t.Fatal(err)
	}
	return img
}

// shade is a pixel's colour as the page writes it.
func shade(img image.Image, x, y int) string {
	r, g, b, _ := img.At(x, y).RGBA()
	return fmt.Sprintf("#%02x%02x%02x", r>>8, g>>8, b>>8)
}

// crop is the colours of a part of a picture.
func crop(img image.Image, r image.Rectangle) []string {
	var out []string
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			out = append(out, shade(img, x, y))
		}
	}
	return out
}
