package bundle

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"drystone.example/drystone/backend/model"
)

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// archive packs files and returns the path.
func archive(t *testing.T, names []string, data ...[]byte) string {
	t.Helper()
	dir := t.TempDir()
	for i, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), data[i], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "archive")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(Pack(t.Context(), f, dir, names), f.Close()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Fatalf("beside the archive are %v (%v)", left, err)
	}
	return path
}

var some = Machine{
	Name: "m", Description: "a <b> & \"c\"", CPUs: 3, Memory: 768 << 20, Firmware: "uefi",
	Disks: []Disk{
		{File: "m-disk1.vmdk", Format: "vmdk", Size: 1 << 30, FileSize: 4, SHA256: digest([]byte("one!"))},
		{File: "m-disk2.vmdk", Format: "vmdk", Size: 64 << 20, FileSize: 5, SHA256: digest([]byte("two!!"))},
	},
	NICs: []NIC{
		{Network: "lan & wan", Model: model.NICVirtio, MAC: "02:00:00:00:00:01"},
		{Network: "out", Model: model.NICVirtio, MAC: "02:00:00:00:00:02"},
	},
}

// What a machine's description says is read again, from our own one and from an OVF, as
// far as that can say it.
func TestRoundTrip(t *testing.T) {
	own, err := some.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	ovf, err := some.MarshalOVF()
	if err != nil {
		t.Fatal(err)
	}
	disks := []string{"m-disk1.vmdk", "m-disk2.vmdk"}
	one, two := []byte("one!"), []byte("two!!")
	for name, path := range map[string]string{
		"own": archive(t, append(disks, File), one, two, own),
		"ovf": archive(t, append([]string{"m.ovf", "m.mf"}, disks...), ovf, some.Manifest("m.ovf", ovf), one, two),
	} {
		got, err := Open(path)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := some
		ignore := cmpopts.IgnoreUnexported(Disk{})
		if name == "own" {
			want.Kind, want.Version = Kind, Version
		} else {
			for i := range got.NICs {
				got.NICs[i].Model = model.NICVirtio
			}
			for i := range got.Disks {
				got.Disks[i].Format = "vmdk" // which is found by what is in it
			}
		}
		if diff := cmp.Diff(want, got, ignore); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		var b bytes.Buffer
		if err := Extract(t.Context(), path, got.Disks[1], &b); err != nil || b.String() != "two!!" {
			t.Errorf("%s: the second disk is %q (%v)", name, b.String(), err)
		}
	}
}

// What the first version wrote is read for ever, and nothing of it is lost.
func TestGolden(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "machine.v1.json"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := Unmarshal(text)
	if err != nil {
		t.Fatal(err)
	}
	again, err := m.Marshal()
	if diff := cmp.Diff(string(text), string(again)); err != nil || diff != "" {
		t.Errorf("%v (-was +written again):\n%s", err, diff)
	}
}

// A descriptor of another product: units of its own, disks in the order of the items, one
// that is empty, and more than one machine.
func TestOVFOfOthers(t *testing.T) {
	const text = `<?xml version="1.0"?><ovf:Envelope xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:r="x">
<ovf:References><ovf:File ovf:href="b.vmdk" ovf:id="fb"/><ovf:File ovf:href="a.vmdk" ovf:id="fa"/></ovf:References>
<ovf:DiskSection><ovf:Disk ovf:diskId="b" ovf:fileRef="fb" ovf:capacity="2" ovf:capacityAllocationUnits="byte * 2^30"/>
<ovf:Disk ovf:diskId="a" ovf:fileRef="fa" ovf:capacity="1" ovf:capacityAllocationUnits="byte * 2^30"/>
<ovf:Disk ovf:diskId="e" ovf:capacity="5" ovf:capacityAllocationUnits="MegaBytes"/></ovf:DiskSection>
<ovf:VirtualSystem ovf:id="web"><ovf:VirtualHardwareSection>
<ovf:Item><r:ResourceType>3</r:ResourceType><r:VirtualQuantity>2</r:VirtualQuantity></ovf:Item>
<ovf:Item><r:AllocationUnits>byte * 2^30</r:AllocationUnits><r:ResourceType>4</r:ResourceType><r:VirtualQuantity>4</r:VirtualQuantity></ovf:Item>
<ovf:Item><r:HostResource>ovf:/disk/a</r:HostResource><r:ResourceType>17</r:ResourceType></ovf:Item>
<ovf:Item><r:HostResource>/disk/b</r:HostResource><r:ResourceType>17</r:ResourceType></ovf:Item>
<ovf:Item><r:Connection>VM Network</r:Connection><r:ResourceSubType>VmxNet3</r:ResourceSubType><r:ResourceType>10</r:ResourceType></ovf:Item>
</ovf:VirtualHardwareSection></ovf:VirtualSystem></ovf:Envelope>`
	got, err := unmarshalOVF(strings.NewReader(text))
	want := Machine{
		Name: "web", CPUs: 2, Memory: 4 << 30, NICs: []NIC{{Network: "VM Network", Model: model.NICVirtio}},
		Disks: []Disk{{File: "a.vmdk", Size: 1 << 30}, {File: "b.vmdk", Size: 2 << 30}, {Size: 5 << 20}},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Disk{})); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	two := strings.Replace(text, "</ovf:Envelope>", `<ovf:VirtualSystem ovf:id="db"/></ovf:Envelope>`, 1)
	if _, err := unmarshalOVF(strings.NewReader(two)); model.CodeOf(err) != model.Invalid {
		t.Errorf("two machines: %v", err)
	}
}

// A disk with another digest than the description says is refused, and so is one that the
// archive lacks.
func TestDamagedDisk(t *testing.T) {
	own, err := some.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	path := archive(t, []string{"m-disk1.vmdk", File}, []byte("one?"), own)
	m, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range m.Disks {
		if err := Extract(t.Context(), path, d, io.Discard); model.CodeOf(err) != model.Invalid {
			t.Errorf("%s: %v, want it refused", d.File, err)
		}
	}
}

// What names files elsewhere, or none, or is of another kind or version is refused.
func TestHostileDescriptions(t *testing.T) {
	for name, change := range map[string]func(text string) string{
		"elsewhere":     func(s string) string { return strings.ReplaceAll(s, "m-disk1.vmdk", "../etc/passwd") },
		"parent":        func(s string) string { return strings.ReplaceAll(s, "m-disk1.vmdk", "/etc/passwd") },
		"twice":         func(s string) string { return strings.ReplaceAll(s, "m-disk2", "m-disk1") },
		"itself":        func(s string) string { return strings.ReplaceAll(s, "m-disk2.vmdk", File) },
		"other kind":    func(s string) string { return strings.Replace(s, Kind, "x", 1) },
		"later version": func(s string) string { return strings.Replace(s, `"version": 1`, `"version": 2`, 1) },
		"no digest":     func(s string) string { return strings.Replace(s, some.Disks[0].SHA256, "", 1) },
		"no json":       func(string) string { return "{" },
	} {
		text, err := some.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Unmarshal([]byte(change(string(text)))); model.CodeOf(err) != model.Invalid {
			t.Errorf("%s: %v, want it refused", name, err)
		}
	}
}

// What would grow as it is unpacked, is no plain file, or has no end is refused.
func TestHostileArchives(t *testing.T) {
	for name, h := range map[string]tar.Header{
		"link": {Name: "d", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"},
		"pipe": {Name: "d", Typeflag: tar.TypeFifo},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := errors.Join(w.WriteHeader(&h), w.Close()); err != nil {
			t.Fatal(err)
		}
		refused(t, name, b.Bytes())
	}
	refused(t, "sparse", sparseArchive(t))
	many := make([]string, maxEntries+1)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for range many {
		if err := w.WriteHeader(&tar.Header{Name: "x", Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	refused(t, "many files", b.Bytes())
	refused(t, "empty", make([]byte, 1024))
}

func refused(t *testing.T, name string, archive []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); model.CodeOf(err) != model.Invalid {
		t.Errorf("%s: opened with %v, want it refused", name, err)
	}
	if err := Extract(t.Context(), path, Disk{File: "d"}, &bounded{left: 1 << 20}); model.CodeOf(err) != model.Invalid {
		t.Errorf("%s: unpacked with %v, want it refused", name, err)
	}
}

// bounded takes no more than so many bytes.
type bounded struct{ left int }

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errors.New("more was unpacked than the archive has")
	}
	return len(p), nil
}

// sparseArchive has a file of 1 TiB that is a hole, in a few KiB, by the PAX headers that
// GNU tar writes for it.
func sparseArchive(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	head := func(name string, kind byte, data []byte) {
		block := make([]byte, 512)
		copy(block, name)
		copy(block[100:], "0000644\x000000000\x000000000\x00")
		copy(block[124:], []byte(octal(len(data))))
		copy(block[136:], "00000000000\x00        ")
		block[156] = kind
		copy(block[257:], "ustar\x0000")
		sum := 0
		for _, c := range block {
			sum += int(c)
		}
		copy(block[148:], []byte(octal(sum)[5:11]+"\x00 "))
		b.Write(block)
		b.Write(data)
		b.Write(make([]byte, (512-len(data)%512)%512))
	}
	pax := "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n21 GNU.sparse.name=d\n37 GNU.sparse.realsize=1099511627776\n"
	head("pax", tar.TypeXHeader, []byte(pax))
	hole := make([]byte, 512)
	copy(hole, "1\n1099511627776\n0\n")
	head("GNUSparseFile.0/d", tar.TypeReg, hole)
	b.Write(make([]byte, 1024))
	h, err := tar.NewReader(bytes.NewReader(b.Bytes())).Next()
	if err != nil || h.Name != "d" || h.Size != 1<<40 {
		t.Fatalf("the archive that should be sparse has %+v, %v", h, err)
	}
	return b.Bytes()
}

// octal is a number as a tar header has one.
func octal(n int) string {
	digits := []byte("00000000000")
	for i := len(digits) - 1; n > 0; i, n = i-1, n>>3 {
		digits[i] = byte('0' + n&7)
	}
	return string(digits) + "\x00"
}
