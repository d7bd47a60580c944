package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"drystone.example/drystone/backend/model"
)

// The formats of images by the names that qemu-img has for them, and OVA, which is an
// archive with an image in it.
const (
	formatQcow2 = "qcow2"
	formatRaw   = "raw"
	formatVMDK  = "vmdk"
	formatVHDX  = "vhdx"
	formatVHD   = "vpc"
	formatOVA   = "ova"
)

// A magic is what a file of a format has at a place.
type magic struct {
	at   int
	text string
	is   string // the format; empty: it is refused
	what string // what it is then
}

var magics = []magic{
	{0, "QFI\xfb", formatQcow2, ""},
	{0, "KDMV", formatVMDK, ""},
	{0, "COWD", formatVMDK, ""},
	{0, "# Disk DescriptorFile", "", "a VMDK descriptor without the data; upload the other file, or convert it (qemu-img convert)"},
	{0, "vhdxfile", formatVHDX, ""},
	{0, vhdCookie, formatVHD, ""},
	{257, "ustar", formatOVA, ""},
	{0, "\x1f\x8b", "", packed},
	{0, "\xfd7zXZ\x00", "", packed},
	{0, "\x28\xb5\x2f\xfd", "", packed},
	{0, "BZh", "", packed},
	{0, "PK\x03\x04", "", packed},
	{0, "7z\xbc\xaf\x27\x1c", "", packed},
}

const (
	packed    = "compressed; unpack it first"
	vhdCookie = "conectix"
	vhdFooter = 512 // bytes at the end of every VHD
	sniffed   = 512 // bytes that are looked at
)

// findFormat says which format a file has by what is in it; what has no sign of any is
// raw, as ISO images are. It decides before any tool sees the file, so that no tool
// guesses.
func findFormat(path string) (string, error) {
	f, err := os.Open(path) //nolint:gosec // a file of ours
	if err != nil {
		return "", fmt.Errorf("open image: %w", err)
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, sniffed)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", fmt.Errorf("read image: %w", err)
	}
	head = head[:n]
	for _, m := range magics {
		if len(head) < m.at || !bytes.HasPrefix(head[m.at:], []byte(m.text)) {
			continue
		}
		if m.is == "" {
			return "", model.Errorf(model.Invalid, "the file is %s", m.what)
		}
		return m.is, nil
	}
	if hasVHDFooter(f) == nil {
		return formatVHD, nil
	}
	return formatRaw, nil
}

// hasVHDFooter refuses a VHD that was cut short: without its footer, which ends every
// one, qemu-img would read what is missing as zeros.
func hasVHDFooter(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("look at image: %w", err)
	}
	cookie := make([]byte, len(vhdCookie))
	if info.Size() >= vhdFooter {
		if _, err := f.ReadAt(cookie, info.Size()-vhdFooter); err != nil {
			return fmt.Errorf("read image: %w", err)
		}
	}
	if string(cookie) != vhdCookie {
		return model.Errorf(model.Invalid, "the vhd image is damaged, or its file was cut short")
	}
	return nil
}

func checkVHD(path string) error {
	f, err := os.Open(path) //nolint:gosec // a file of ours
	if err != nil {
		return fmt.Errorf("open image: %w", err)
	}
	defer func() { _ = f.Close() }()
	return hasVHDFooter(f)
}
