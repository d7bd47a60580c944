package agent

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"drystone.example/drystone/backend/model"
)

func importer(t *testing.T) *Agent {
	t.Helper()
	return &Agent{cfg: Config{Scratch: filepath.Join(t.TempDir(), "scratch")}, log: slog.New(slog.DiscardHandler)}
}

// write makes a file and returns its path.
func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Every format is found by what is in the file, whatever that is called.
func TestFindFormat(t *testing.T) {
	dir := t.TempDir()
	raw := write(t, "raw", bytes.Repeat([]byte("drystone"), 1<<18))
	for format, options := range map[string]string{
		formatQcow2: "", formatVHDX: "", formatVMDK: "subformat=streamOptimized", formatVHD: "subformat=fixed,force_size",
	} {
		path := filepath.Join(dir, format)
		args := []string{"convert", "-f", "raw", "-O", format}
		if options != "" {
			args = append(args, "-o", options)
		}
		qemuImg(t, append(args, raw, path)...)
		i, err := importer(t).OpenImage(t.Context(), path, "")
		if err != nil || i.format != format || i.Size != 2<<20 {
			t.Errorf("%s: %+v, %v; want 2 MiB", format, i, err)
		}
	}
	if i, err := importer(t).OpenImage(t.Context(), raw, ""); err != nil || i.format != formatRaw {
		t.Errorf("raw: %+v, %v", i, err)
	}
	for name, head := range map[string]string{
		"gzip": "\x1f\x8b\x08", "xz": "\xfd7zXZ\x00", "zip": "PK\x03\x04", "zstd": "\x28\xb5\x2f\xfd",
		"descriptor": "# Disk DescriptorFile\nversion=1\n",
	} {
		_, err := importer(t).OpenImage(t.Context(), write(t, name, []byte(head+strings.Repeat("x", 1<<20))), "")
		if model.CodeOf(err) != model.Invalid {
			t.Errorf("%s: %v, want it refused", name, err)
		}
	}
}

// A qcow2 that promises 2^60 bytes is refused, and so is a VHD that was cut short.
func TestHostileSizes(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "huge")
	qemuImg(t, "create", "-q", "-f", "qcow2", path, "64M")
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(binary.BigEndian.AppendUint64(nil, 1<<60), 24); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	vhd := cutShort(t, dir, formatVHD)
	for path, format := range map[string]string{path: "", vhd: formatVHD} {
		if _, err := importer(t).OpenImage(t.Context(), path, format); model.CodeOf(err) != model.Invalid {
			t.Errorf("%s: %v, want it refused", filepath.Base(path), err)
		}
	}
}

const oneDisk = `<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
<References><File ovf:id="f1" ovf:href="%s" ovf:size="1"%s/></References>
<DiskSection><Info>disks</Info><Disk ovf:diskId="d1" ovf:fileRef="f1" ovf:capacity="2" ovf:capacityAllocationUnits="byte * 2^20"/>%s</DiskSection>
</Envelope>`

type member struct {
	name string
	data []byte
	head tar.Header // what else is special about it
}

func ova(t *testing.T, members ...member) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := m.head
		h.Name, h.Mode, h.Size = m.name, 0o644, int64(len(m.data))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return write(t, "x.ova", b.Bytes())
}

func descriptor(href, compression, more string) []byte {
	return fmt.Appendf(nil, oneDisk, href, compression, more)
}

// The disk of an OVA becomes an image, and nothing is left when it is closed.
func TestOVA(t *testing.T) {
	raw := write(t, "raw", bytes.Repeat([]byte("drystone"), 1<<18))
	disk := filepath.Join(t.TempDir(), "disk.vmdk")
	qemuImg(t, "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, disk)
	data, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	a := importer(t)
	path := ova(t, member{name: "m.ovf", data: descriptor("m-disk1.vmdk", "", "")}, member{name: "m-disk1.vmdk", data: data})
	i, err := a.OpenImage(t.Context(), path, "")
	if err != nil || i.Size != 2<<20 {
		t.Fatalf("OpenImage: %+v, %v", i, err)
	}
	qemuImg(t, "compare", "-f", "raw", "-F", "vmdk", raw, i.path)
	if err := i.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(a.cfg.Scratch); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// An OVA that is compressed inside, has holes, or points elsewhere is refused, takes no
// more room than it has itself, and leaves nothing.
func TestHostileOVA(t *testing.T) {
	good := descriptor("d.vmdk", "", "")
	hole := tar.Header{Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}
	cut := ova(t, member{name: "m.ovf", data: good}, member{name: "d.vmdk", data: bytes.Repeat([]byte("x"), 1<<20)})
	if err := os.Truncate(cut, 1<<19); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"compressed":    ova(t, member{name: "m.ovf", data: descriptor("d.vmdk", ` ovf:compression="gzip"`, "")}, member{name: "d.vmdk", data: []byte("x")}),
		"two disks":     ova(t, member{name: "m.ovf", data: descriptor("d.vmdk", "", `<Disk ovf:fileRef="f1"/>`)}, member{name: "d.vmdk", data: []byte("x")}),
		"elsewhere":     ova(t, member{name: "m.ovf", data: descriptor("../../etc/passwd", "", "")}, member{name: "d.vmdk", data: []byte("x")}),
		"link":          ova(t, member{name: "m.ovf", data: good}, member{name: "d.vmdk", head: hole}),
		"no descriptor": ova(t, member{name: "d.vmdk", data: []byte("x")}),
		"large descriptor": ova(t, member{name: "m.ovf", data: append([]byte("<Envelope>"), bytes.Repeat([]byte(" "), 2<<20)...)},
			member{name: "d.vmdk", data: []byte("x")}),
		"no image": ova(t, member{name: "m.ovf", data: good}, member{name: "d.vmdk", data: []byte("this is no VMDK")}),
		"cut":      cut,
		"sparse":   sparseOVA(t, good),
	} {
		a := importer(t)
		_, err := a.OpenImage(t.Context(), path, "")
		if model.CodeOf(err) != model.Invalid {
			t.Errorf("%s: %v, want it refused", name, err)
		}
		if left, _ := os.ReadDir(a.cfg.Scratch); len(left) > 0 {
			t.Errorf("%s left %v", name, left)
		}
	}
}

// sparseOVA has a disk of 1 TiB that is a hole, in 1 KiB, by the PAX headers that GNU tar
// writes for it.
func sparseOVA(t *testing.T, descriptor []byte) string {
	t.Helper()
	pax := "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n" +
		paxRecord("GNU.sparse.name", "d.vmdk") + paxRecord("GNU.sparse.realsize", "1099511627776")
	var b bytes.Buffer
	head := func(name string, kind byte, data []byte) {
		w := tar.NewWriter(&b)
		h := tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		at := b.Len()
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		block := b.Bytes()[at:][:512]
		block[156] = kind
		sum := 0
		copy(block[148:156], "        ")
		for _, c := range block {
			sum += int(c)
		}
		copy(block[148:156], fmt.Sprintf("%06o\x00 ", sum))
	}
	head("m.ovf", tar.TypeReg, descriptor)
	head("pax", tar.TypeXHeader, []byte(pax))
	sparseMap := make([]byte, 512)
	copy(sparseMap, "1\n1099511627776\n0\n")
	head("GNUSparseFile.0/d.vmdk", tar.TypeReg, sparseMap)
	b.Write(make([]byte, 1024))
	return write(t, "sparse.ova", b.Bytes())
}

// paxRecord is a PAX record with its own length in front.
func paxRecord(key, value string) string {
	rest := " " + key + "=" + value + "\n"
	n := len(rest)
	for len(strconv.Itoa(n))+len(rest) != n {
		n++
	}
	return strconv.Itoa(n) + rest
}
