// Package cidata makes the CD-ROM that cloud-init in a guest reads (NoCloud): a small ISO
// 9660 image with the label cidata and, by their Joliet names, the files user-data and
// meta-data.
//
// It is a writer for a handful of small files in one folder, and not more: no other
// folders, no Rock Ridge, no booting. The same files make the same bytes.
package cidata

import (
	"encoding/binary"
	"strings"
	"unicode/utf16"

	"drystone.example/drystone/backend/must"
)

// Label is what cloud-init looks for.
const Label = "cidata"

// SectorSize is that of a CD-ROM, in bytes.
const SectorSize = 2048

// What is in which sector. The two folders and the two path tables of each order are the
// same files by two names.
const (
	primarySector = 16 + iota
	jolietSector
	endSector
	primaryLittle // path tables
	primaryBig
	jolietLittle
	jolietBig
	primaryFolder
	jolietFolder
	firstFile
)

// A file is one of the two, with the name that is for those who know of no Joliet.
type file struct {
	name, short string
	content     []byte
	sector      uint32
}

// Image returns the CD-ROM's bytes, which are a whole number of sectors.
func Image(userData, metaData string) []byte {
	files := []*file{ // in the order of their names
		{name: "meta-data", short: "META_DATA.;1", content: []byte(metaData)},
		{name: "user-data", short: "USER_DATA.;1", content: []byte(userData)},
	}
	next := uint32(firstFile)
	for _, f := range files {
		f.sector = next
		next += (uint32(len(f.content)) + SectorSize - 1) / SectorSize
	}
	image := make([]byte, int(next)*SectorSize)
	at := func(sector uint32) []byte { return image[int(sector)*SectorSize:] }
	copy(at(primarySector), descriptor(1, next, primaryLittle, primaryBig, primaryFolder))
	copy(at(jolietSector), descriptor(2, next, jolietLittle, jolietBig, jolietFolder))
	copy(at(endSector), append([]byte{255}, "CD001\x01"...))
	copy(at(primaryLittle), pathTable(binary.LittleEndian, primaryFolder))
	copy(at(primaryBig), pathTable(binary.BigEndian, primaryFolder))
	copy(at(jolietLittle), pathTable(binary.LittleEndian, jolietFolder))
	copy(at(jolietBig), pathTable(binary.BigEndian, jolietFolder))
	copy(at(primaryFolder), folder(primaryFolder, files, func(f *file) []byte { return []byte(f.short) }))
	copy(at(jolietFolder), folder(jolietFolder, files, func(f *file) []byte { return ucs2(f.name) }))
	for _, f := range files {
		copy(at(f.sector), f.content)
	}
	return image
}

// pathTableSize is that of a table with the root alone, in bytes.
const pathTableSize = 10

// descriptor is a volume descriptor: 1 is the primary one, 2 that of Joliet.
func descriptor(kind byte, sectors, little, big, root uint32) []byte {
	d := make([]byte, 0, SectorSize)
	text := func(s string, n int) {
		if kind == 2 {
			b := ucs2(s)
			for len(b)+1 < n {
				b = append(b, 0, ' ')
			}
			d = append(d, append(b, make([]byte, n-len(b))...)...)
			return
		}
		d = append(d, s+strings.Repeat(" ", n-len(s))...)
	}
	zeros := func(n int) { d = append(d, make([]byte, n)...) }
	d = append(d, kind)
	d = append(d, "CD001\x01\x00"...)
	text("", 32) // system
	text(Label, 32)
	zeros(8)
	d = both32(d, sectors)
	if kind == 2 {
		d = append(d, "%/E"...) // UCS-2, level 3
		zeros(29)
	} else {
		zeros(32)
	}
	d = both16(d, 1) // discs
	d = both16(d, 1) // which of them
	d = both16(d, SectorSize)
	d = both32(d, pathTableSize)
	d = binary.LittleEndian.AppendUint32(d, little)
	zeros(4)
	d = binary.BigEndian.AppendUint32(d, big)
	zeros(4)
	d = append(d, record([]byte{0}, root, SectorSize, true)...)
	text("", 128) // set
	text("", 128) // publisher
	text("", 128) // preparer
	text("", 128) // application
	text("", 37)  // files with the copyright, an abstract and a bibliography
	text("", 37)
	text("", 37)
	for range 4 { // when it was made, changed, ends and begins to be of use: not said
		d = append(d, strings.Repeat("0", 16)+"\x00"...)
	}
	d = append(d, 1, 0)
	must.That(len(d) == 883, "a volume descriptor has %d bytes before what is free", len(d))
	return d
}

func pathTable(order binary.AppendByteOrder, root uint32) []byte {
	t := []byte{1, 0}
	t = order.AppendUint32(t, root)
	t = order.AppendUint16(t, 1) // it is its own parent
	return append(t, 0, 0)
}

func folder(self uint32, files []*file, name func(*file) []byte) []byte {
	var list []byte
	list = append(list, record([]byte{0}, self, SectorSize, true)...) // itself
	list = append(list, record([]byte{1}, self, SectorSize, true)...) // its parent
	for _, f := range files {
		list = append(list, record(name(f), f.sector, uint32(len(f.content)), false)...)
	}
	must.That(len(list) <= SectorSize, "a folder has %d bytes", len(list))
	return list
}

// record is a folder's word about a file.
func record(name []byte, sector, size uint32, isFolder bool) []byte {
	const head = 33
	n := head + len(name)
	n += n % 2
	r := make([]byte, 0, n)
	r = append(r, byte(n), 0)
	r = both32(r, sector)
	r = both32(r, size)
	r = append(r, 100, 1, 1, 0, 0, 0, 0) // the first of January 2000
	flags := byte(0)
	if isFolder {
		flags = 2
	}
	r = append(r, flags, 0, 0)
	r = both16(r, 1)
	r = append(r, byte(len(name)))
	r = append(r, name...)
	return append(r, make([]byte, n-len(r))...)
}

// both16 and both32 write a number in both byte orders, as the format has it.
func both16(b []byte, n uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.LittleEndian.AppendUint16(b, n), n)
}

func both32(b []byte, n uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, n), n)
}

func ucs2(s string) (b []byte) {
	for _, unit := range utf16.Encode([]rune(s)) {
		b = binary.BigEndian.AppendUint16(b, unit)
	}
	return b
}
