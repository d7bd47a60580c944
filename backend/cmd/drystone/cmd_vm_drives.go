package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/client"
	"drystone.example/drystone/backend/model"
)

// driveFlags are the flags of vm create and vm edit about drives.
type driveFlags struct {
	cdroms             []string
	boot               []string
	userData, metaData string
	noCDROM, noSeed    bool
	eject              []int
}

const diskHelp = "a new disk: a size, or the name of an image to copy; with ,bus=sata for guests without a virtio driver (may be repeated)"

func (f *driveFlags) flags(c *cobra.Command, cdHelp string) {
	c.Flags().StringArrayVar(&f.cdroms, "cdrom", nil, cdHelp)
	c.Flags().StringSliceVar(&f.boot, "boot", nil,
		"what it starts from, in order, with commas: disk1, cdrom1, nic1 and so on (default disk1, then the CD-ROM drives)")
	c.Flags().StringVar(&f.userData, "user-data", "", "file that cloud-init in the guest reads as user data; - for standard input")
	c.Flags().StringVar(&f.metaData, "meta-data", "", "file that cloud-init in the guest reads as meta data (default the machine's identifier and name)")
}

// diskSource reads a --disk or --volume without its size, image or volume: SOURCE[,bus=BUS].
func diskSource(flag, text string) (source string, d schema.DiskFrom, err error) {
	source, rest, more := strings.Cut(text, ",")
	if !more {
		return source, d, nil
	}
	bus, ok := strings.CutPrefix(rest, "bus=")
	if d.Bus = schema.DiskBus(bus); !ok || d.Bus != schema.DiskVirtio && d.Bus != schema.DiskSATA {
		return "", d, usagef("--%s is SOURCE[,bus=virtio|sata], not %q", flag, text)
	}
	return source, d, nil
}

// A cdromWish is a --cdrom, which of the drives it means, from 1, and whether the image
// and the bus are said.
type cdromWish struct {
	drive int
	schema.CDROMSpec
}

// wishes reads --cdrom IMAGE[,bus=BUS][,drive=N]; no image is an empty drive.
func (f *driveFlags) wishes() (list []cdromWish, err error) {
	for i, text := range f.cdroms {
		words := strings.Split(text, ",")
		w := cdromWish{drive: i + 1, CDROMSpec: schema.CDROMSpec{Image: words[0]}}
		for _, word := range words[1:] {
			key, value, _ := strings.Cut(word, "=")
			n, err := strconv.Atoi(value)
			switch {
			case key == "bus" && (value == string(model.BusSATA) || value == string(model.BusSCSI)):
				w.Bus = model.DriveBus(value)
			case key == "drive" && err == nil && n >= 1 && n <= model.MaxCDROMs:
				w.drive = n
			default:
				return nil, usagef("--cdrom is IMAGE[,bus=sata|scsi][,drive=N], not %q", text)
			}
		}
		list = append(list, w)
	}
	return list, nil
}

// put makes the drives those that are wished.
func put(drives []schema.CDROMSpec, wishes []cdromWish) []schema.CDROMSpec {
	for _, w := range wishes {
		for len(drives) < w.drive {
			drives = append(drives, schema.CDROMSpec{})
		}
		d := &drives[w.drive-1]
		d.Image = w.Image
		if w.Bus != "" {
			d.Bus = w.Bus
		}
	}
	return drives
}

// seed reads the files for cloud-init.
func (f *driveFlags) seed() (*schema.CloudInit, error) {
	if f.userData == "" && f.metaData == "" {
		return nil, nil //nolint:nilnil // nothing is said of it, which is no mistake
	}
	if f.userData == "-" && f.metaData == "-" {
		return nil, usagef("standard input is one file")
	}
	var c schema.CloudInit
	var err error
	if f.userData != "" {
		if c.UserData, err = readSeed(f.userData); err != nil {
			return nil, err
		}
	}
	if f.metaData != "" {
		c.MetaData, err = readSeed(f.metaData)
	}
	return &c, err
}

func readSeed(path string) (string, error) {
	file := os.Stdin
	if path != "-" {
		var err error
		if file, err = os.Open(path); err != nil { //nolint:gosec // the caller names it
			return "", fmt.Errorf("open a file for cloud-init: %w", err)
		}
		defer letGo(file)
	}
	text, err := io.ReadAll(io.LimitReader(file, model.MaxSeed+1))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	if len(text) > model.MaxSeed {
		return "", usagef("a file for cloud-init has at most %d bytes", model.MaxSeed)
	}
	return string(text), nil
}

// create adds what is asked for to a new machine.
func (f *driveFlags) create(s *schema.VMSpec) error {
	wishes, err := f.wishes()
	if err != nil {
		return err
	}
	s.CDROMs, s.BootOrder = put(nil, wishes), f.boot
	s.CloudInit, err = f.seed()
	return err
}

func (f *driveFlags) editFlags(c *cobra.Command) {
	f.flags(c, "put this image into a CD-ROM drive, the first where no other is said: IMAGE[,drive=N][,bus=sata|scsi] (may be repeated)")
	c.Flags().BoolVar(&f.noCDROM, "no-cdrom", false, "take out its CD-ROM drives")
	c.Flags().IntSliceVar(&f.eject, "eject", nil, "take out what is in this CD-ROM drive; the first where no number is given")
	c.Flags().Lookup("eject").NoOptDefVal = "1"
	c.Flags().BoolVar(&f.noSeed, "no-cloud-init", false, "forget what cloud-init reads")
}

// edit adds what is asked for to a change of a machine, whose drives are looked at.
func (f *driveFlags) edit(ctx context.Context, c *client.Client, ref string, given func(string) bool, to *schema.VMChange) error {
	wishes, err := f.wishes()
	if err != nil {
		return err
	}
	if len(wishes)+len(f.eject) > 0 && f.noCDROM {
		return usagef("--no-cdrom goes with neither --cdrom nor --eject")
	}
	if to.CloudInit, err = f.seed(); err != nil {
		return err
	}
	switch {
	case f.noSeed && to.CloudInit != nil:
		return usagef("--no-cloud-init goes with neither --user-data nor --meta-data")
	case f.noSeed:
		to.CloudInit = &schema.CloudInit{}
	}
	if f.boot == nil {
		f.boot = []string{}
	}
	set(&to.BootOrder, &f.boot, given("boot"))
	drives := []schema.CDROMSpec{}
	if f.noCDROM {
		to.CDROMs = &drives
	}
	if len(wishes)+len(f.eject) == 0 {
		return nil
	}
	vm, err := c.VM(ctx, ref)
	if err != nil {
		return err
	}
	for _, d := range vm.CDROMs {
		drives = append(drives, schema.CDROMSpec{Image: d.Name, Bus: d.Bus})
	}
	for _, n := range f.eject {
		if n < 1 || n > len(drives) {
			return usagef("the machine has %d CD-ROM drives, and not number %d", len(drives), n)
		}
		drives[n-1].Image = ""
	}
	drives = put(drives, wishes)
	to.CDROMs = &drives
	return nil
}

// given reports whether a flag about drives is.
func (f *driveFlags) given(is func(string) bool) bool {
	return slices.ContainsFunc([]string{"cdrom", "no-cdrom", "eject", "boot", "user-data", "meta-data", "no-cloud-init"}, is)
}

func printDrives(w io.Writer, v schema.VM) {
	if len(v.CDROMs) == 0 {
		return
	}
	say(w, "\n")
	say(w, "DRIVE\tBUS\tIMAGE\tSIZE\n")
	for i, d := range v.CDROMs {
		name, bytes := "(empty)", ""
		if d.Image != 0 {
			name, bytes = d.Name, size(d.Size)
		}
		say(w, "cdrom%d\t%s\t%s\t%s\n", i+1, d.Bus, name, bytes)
	}
}

func cloudInit(v schema.VM) string {
	if v.CloudInit {
		return "has something to read"
	}
	return ""
}

// startsFrom is the boot order of a machine without a kernel of its own.
func startsFrom(v schema.VM) string {
	if v.Boot != nil {
		return ""
	}
	return strings.Join(v.BootOrder, ", ")
}
