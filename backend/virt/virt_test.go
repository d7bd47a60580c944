package virt

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/digitalocean/go-libvirt"
	"github.com/google/go-cmp/cmp"
	"libvirt.org/go/libvirtxml"

	"drystone.example/drystone/backend/model"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

const testVM = model.VMID(0x0123456789abcdef)

// testHypervisor has no libvirtd behind it.
func testHypervisor(t *testing.T, a Accelerator) *Hypervisor {
	t.Helper()
	h, err := New(Config{
		URI: "qemu+unix:///system?socket=/run/none/libvirt-sock", Dir: "/srv/vms",
		Accelerator: a, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	h.user.uid, h.user.gid = 64055, 107 // whatever they are on this machine
	return h
}

func testDomain() Domain {
	return Domain{
		ID: testVM, Name: "web-1 <&>", Revision: 42, CPUs: 2, Memory: 2 << 30,
		Disks: []Disk{
			{Socket: "/srv/run/vhost-a.sock", Boot: 1},
			{Socket: "/srv/run/vhost-b.sock", Slot: 1, Queues: 1, QueueSize: 256},
		},
	}
}

// The XML is what a person has looked at; a change of it is a change of the
// machine a guest sees.
func TestXML(t *testing.T) {
	kernel := testDomain()
	now := testDomain()
	now.Hardware = 1
	kernel.Disks[0].Boot = 0
	kernel.Kernel = &Kernel{
		Path: "/srv/files/k", Initrd: "/srv/files/i", Append: `console=ttyS0 a="<&>'"`,
	}
	nics := testDomain()
	nics.NICs, nics.Hardware = testNICs(), 2
	for name, tt := range map[string]struct {
		accel Accelerator
		d     Domain
	}{
		"disk-kvm":   {KVM, testDomain()},
		"kernel-tcg": {TCG, kernel},
		"nics":       {TCG, nics},
		"hardware":   {KVM, now},
		"drives":     {KVM, drivesDomain()},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := testHypervisor(t, tt.accel).xml(tt.d)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", name+".xml")
			if *rewrite {
				if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("xml differs (-want +got); -rewrite makes it so:\n%s", diff)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	for name, change := range map[string]func(*Domain){
		"":                func(*Domain) {},
		"identifier":      func(d *Domain) { d.ID = 0 },
		"cpus":            func(d *Domain) { d.CPUs = model.MaxCPUs + 1 },
		"bytes of memory": func(d *Domain) { d.Memory++ },
		"at most 16":      func(d *Domain) { d.Disks = make([]Disk, 17) },
		"a disk or":       func(d *Domain) { d.Disks = nil },
		"kernel's path":   func(d *Domain) { d.Kernel = &Kernel{Path: "k"} },
		"initrd's path":   func(d *Domain) { d.Kernel = &Kernel{Path: "/k", Initrd: "../i"} },
		"character U+000A": func(d *Domain) {
			d.Kernel = &Kernel{Path: "/k", Append: "a\nb"}
		},
		"character U+0000": func(d *Domain) { d.Name = "a\x00" },
		"character U+FFFD": func(d *Domain) { d.Name = "a\xff" },
		"absolute path":    func(d *Domain) { d.Disks[0].Socket = "a.sock" },
		"107 bytes": func(d *Domain) {
			d.Disks[0].Socket = "/" + strings.Repeat("a", 107)
		},
		"card 1 is not one":   func(d *Domain) { d.NICs, d.Hardware = testNICs(), 2; d.NICs[1].Model = "ne2k" },
		"card 0 is not":       func(d *Domain) { d.NICs, d.Hardware = testNICs(), 2; d.NICs[0].MAC = "ff:ff:ff:ff:ff:ff" },
		"no slot 8":           func(d *Domain) { d.NICs, d.Hardware = testNICs(), 2; d.NICs[0].Slot = 8 },
		"slot or the address": func(d *Domain) { d.NICs, d.Hardware = testNICs(), 2; d.NICs[1].Slot = d.NICs[0].Slot },
		"the vlan 4095":       func(d *Domain) { d.NICs, d.Hardware = testNICs(), 2; d.NICs[0].VLAN = 4095 },
		"the vlan 1":          func(d *Domain) { d.NICs, d.Hardware = testNICs(), 2; d.NICs[1].VLAN = 1 },
		"no network cards":    func(d *Domain) { d.NICs, d.Hardware = testNICs(), 1 },
		"on the bus \"scsi\"": func(d *Domain) { d.Disks[1].Bus = model.BusSCSI },
		"0 bytes on the bus":  func(d *Domain) { d.Disks[1].Bus = model.BusSATA },
		"no slot 5 on sata": func(d *Domain) {
			d.CDROMs = []CDROM{{Bus: model.BusSATA, Slot: 5}}
			d.Disks[1].Bus, d.Disks[1].Size = model.BusSATA, 1<<30
		},
		"no slot 0 on scsi":   func(d *Domain) { d.CDROMs = []CDROM{{Bus: model.BusSCSI}, {Bus: model.BusSCSI}} },
		"drive 0: the socket": func(d *Domain) { d.CDROMs = []CDROM{{Bus: model.BusSATA, Socket: "c.sock"}} },
		"16 queues":           func(d *Domain) { d.Disks[0].Queues = 17 },
		"power of two":        func(d *Domain) { d.Disks[0].QueueSize = 100 },
	} {
		d := testDomain()
		change(&d)
		err := d.validate()
		if (name == "") != (err == nil) {
			t.Errorf("validate with a wrong %q = %v", name, err)
		}
		if err != nil && (model.CodeOf(err) != model.Invalid || !strings.Contains(err.Error(), name)) {
			t.Errorf("validate = %v (%s), want one that tells of %q", err, model.CodeOf(err), name)
		}
	}
}

// Whatever a name or a command line holds, it is refused or arrives in libvirt as
// it is, and changes nothing else of the machine.
func FuzzXML(f *testing.F) {
	f.Add("web-1", "console=ttyS0")
	f.Add("</title><devices/>", `"'&<![CDATA[`)
	f.Add("\u2028", "]]>")
	h := &Hypervisor{dir: "/srv", accel: TCG}
	f.Fuzz(func(t *testing.T, name, words string) {
		d := testDomain()
		d.Name, d.Kernel = name, &Kernel{Path: "/k", Append: words}
		if d.validate() != nil {
			return
		}
		doc, err := h.xml(d)
		if err != nil {
			t.Fatal(err)
		}
		var got, plain libvirtxml.Domain
		if err := got.Unmarshal(doc); err != nil {
			t.Fatalf("%q is no XML: %v", doc, err)
		}
		if got.Title != name || got.OS.Cmdline != words {
			t.Errorf("%q and %q arrive as %q and %q", name, words, got.Title, got.OS.Cmdline)
		}
		d.Name, d.Kernel.Append = "", ""
		if doc, err = h.xml(d); err != nil {
			t.Fatal(err)
		}
		if err := plain.Unmarshal(doc); err != nil {
			t.Fatal(err)
		}
		got.Title, got.OS.Cmdline = "", ""
		if diff := cmp.Diff(plain, got); diff != "" {
			t.Errorf("%q and %q change the machine:\n%s", name, words, diff)
		}
	})
}

// A UUID is for ever: guests have seen it.
func TestUUID(t *testing.T) {
	const want = "9a705ecd-29a5-81fe-9b2f-203419e14ef1"
	got := formatUUID(domainUUID(testVM))
	if got != want {
		t.Errorf("UUID of %s = %s, want %s", testVM, got, want)
	}
	if got == formatUUID(domainUUID(testVM+1)) {
		t.Errorf("two machines have the UUID %s", got)
	}
}

func TestSocketOf(t *testing.T) {
	for uri, want := range map[string]string{
		SystemURI:                         "/run/libvirt/libvirt-sock",
		"qemu+unix:///system?socket=/a/b": "/a/b",
		"qemu:///system":                  "",
		"qemu+unix:///session?socket=/a":  "",
		"qemu+unix:///system":             "",
		"qemu+ssh://host/system?socket=/": "",
		":":                               "",
	} {
		got, err := socketOf(uri)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("socketOf(%q) = %q, %v; want %q", uri, got, err, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for name, cfg := range map[string]Config{
		"uri":         {URI: "qemu:///system", Dir: "/srv", Accelerator: TCG},
		"accelerator": {URI: SystemURI, Dir: "/srv", Accelerator: "xen"},
		"relative":    {URI: SystemURI, Dir: "srv", Accelerator: TCG},
		"long":        {URI: SystemURI, Dir: "/" + strings.Repeat("a", 90), Accelerator: TCG},
	} {
		if _, err := New(cfg); model.CodeOf(err) != model.Invalid {
			t.Errorf("New with a wrong %s = %v, want invalid", name, err)
		}
	}
}

// The probe boots a real machine of one instruction. Whether KVM does it too is
// this machine's affair, but the answer comes with a code.
func TestProbe(t *testing.T) {
	if err := probe(t.Context(), TCG); err != nil {
		t.Errorf("probe of TCG = %v, want nil", err)
	}
	if err := ProbeKVM(t.Context()); err != nil && model.CodeOf(err) != model.Unavailable {
		t.Errorf("ProbeKVM = %v, want nil or unavailable", err)
	}
}

// Without libvirtd every call fails soon, says so, and Run goes on trying.
func TestNoLibvirtd(t *testing.T) {
	h := testHypervisor(t, TCG)
	h.dir = t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	for name, call := range map[string]func() error{
		"Ping":     func() error { return h.Ping(ctx) },
		"Shutdown": func() error { return h.Shutdown(ctx, testVM) },
		"Reset":    func() error { return h.Reset(ctx, testVM) },
		"Undefine": func() error { return h.Undefine(ctx, testVM) },
		"Guest":    func() error { _, err := h.Guest(ctx, testVM); return err },
		"Guests":   func() error { _, err := h.Guests(ctx); return err },
		"Start":    func() error { return h.Start(ctx, testDomain()) },
	} {
		if err := call(); model.CodeOf(err) != model.Unavailable {
			t.Errorf("%s without libvirtd = %v, want unavailable", name, err)
		}
	}
	if err := h.Destroy(ctx, testVM); err != nil {
		t.Errorf("Destroy of a machine that has no process = %v, want nil", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
}

// A libvirtd that accepts and says nothing costs a call its time, no more.
func TestSilentLibvirtd(t *testing.T) {
	h := testHypervisor(t, TCG)
	h.socket = filepath.Join(t.TempDir(), "s")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", h.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	before := runtime.NumGoroutine()
	for range 5 {
		began := time.Now()
		err = h.do(t.Context(), 20*time.Millisecond, func(*libvirt.Libvirt) error { return nil })
		if took := time.Since(began); model.CodeOf(err) != model.Unavailable || took > 5*time.Second {
			t.Errorf("do = %v after %v, want unavailable after 0.02 s", err, took)
		}
	}
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines are left, %d were before", runtime.NumGoroutine(), before)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestCoded(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want model.Code
	}{
		{nil, ""},
		{libvirt.Error{Code: uint32(libvirt.ErrNoDomain)}, model.NotFound},
		{libvirt.Error{Code: uint32(libvirt.ErrOperationInvalid)}, model.Conflict},
		{libvirt.Error{Code: uint32(libvirt.ErrXMLError)}, model.Invalid},
		{libvirt.Error{Code: uint32(libvirt.ErrInternalError)}, model.Unavailable},
		{libvirt.ErrInterrupted, model.Unavailable},
		{errors.New("broken pipe"), model.Unavailable},
	} {
		if got := model.CodeOf(coded(tt.err)); got != tt.want {
			t.Errorf("code of %v = %q, want %q", tt.err, got, tt.want)
		}
	}
}

func TestEventOf(t *testing.T) {
	name := domainName(testVM)
	for _, tt := range []struct {
		domain        string
		event, detail int32
		want          Event
		ok            bool
	}{
		{name, 2, 0, Event{VM: testVM, State: Running, Reason: "booted"}, true},
		{name, 5, 0, Event{VM: testVM, State: Stopped, Reason: "shutdown"}, true},
		{name, 5, 99, Event{VM: testVM, State: Stopped}, true},
		{name, 5, -1, Event{VM: testVM, State: Stopped}, true},
		{name, 8, 0, Event{VM: testVM, State: Crashed}, true},
		{name, 0, 0, Event{}, false},
		{name, 77, 0, Event{}, false},
		{"debian", 5, 0, Event{State: Stopped, Reason: "shutdown"}, false},
	} {
		msg := libvirt.DomainEventLifecycleMsg{Event: tt.event, Detail: tt.detail}
		msg.Dom.Name = tt.domain
		if got, ok := eventOf(msg); got != tt.want || ok != tt.ok {
			t.Errorf("eventOf(%+v) = %+v, %v; want %+v, %v", msg, got, ok, tt.want, tt.ok)
		}
	}
}

// A reader that does not keep up learns at the end that it has missed something.
func TestSlowReader(t *testing.T) {
	h := testHypervisor(t, TCG)
	for range 10 * eventBacklog {
		h.tell(t.Context(), Event{VM: testVM, State: Running})
	}
	var last Event
	for range eventBacklog {
		last = <-h.Events()
	}
	if !last.Resync {
		t.Errorf("the last event is %+v, want a resync", last)
	}
}

func TestSerialLog(t *testing.T) {
	h := testHypervisor(t, TCG)
	h.dir = t.TempDir()
	if err := os.MkdirAll(h.folder(testVM), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := h.SerialLog(testVM, 10); err != nil || len(got) != 0 {
		t.Errorf("SerialLog of a machine that never ran = %q, %v", got, err)
	}
	for suffix, text := range map[string]string{"": "ghi", ".0": "def", ".1": "abc"} {
		if err := os.WriteFile(h.serialLog(testVM)+suffix, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for limit, want := range map[int]string{0: "", 2: "hi", 3: "ghi", 5: "efghi", 99: "abcdefghi"} {
		if got, err := h.SerialLog(testVM, limit); err != nil || string(got) != want {
			t.Errorf("SerialLog(%d) = %q, %v; want %q", limit, got, err, want)
		}
	}
}

// A console is a socket where QEMU may put things: what is no socket of its own is
// not opened. A path too long for connect works all the same.
func TestDialSocket(t *testing.T) {
	dir := t.TempDir()
	deep := filepath.Join(dir, strings.Repeat("d", 60), strings.Repeat("e", 60))
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	short := filepath.Join(dir, "s")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", short)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	sock := filepath.Join(deep, "real.sock")
	if err := os.Rename(short, sock); err != nil {
		t.Fatal(err)
	}
	link, file := filepath.Join(dir, "link"), filepath.Join(dir, "file")
	if err := os.Symlink(sock, link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]model.Code{
		sock: "", link: model.Internal, file: model.Internal,
		filepath.Join(dir, "none"): model.Conflict,
	} {
		conn, err := dialSocket(t.Context(), path)
		if model.CodeOf(err) != want {
			t.Errorf("dialSocket(%s) = %v, want %q", path, err, want)
		}
		if err == nil {
			_ = conn.Close()
		}
	}
	if err := os.Link(sock, filepath.Join(dir, "hard")); err != nil {
		t.Fatal(err)
	}
	if _, err := dialSocket(t.Context(), sock); model.CodeOf(err) != model.Internal {
		t.Errorf("dialSocket of a socket with two names = %v, want refused", err)
	}
}

// The memory of a guest is copied while it runs only where QEMU sees each of its writes.
func TestCopyFlags(t *testing.T) {
	for a, live := range map[Accelerator]bool{KVM: true, TCG: false} {
		if got := copyFlags(a)&libvirt.MigrateLive != 0; got != live {
			t.Errorf("with %s guests are copied while they run: %v, want %v", a, got, live)
		}
	}
}
