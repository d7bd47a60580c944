package virt

import (
	"testing"

	"drystone.example/drystone/backend/model"
)

// drivesDomain starts from its second CD-ROM drive, then from the network, then from its
// disk on SATA.
func drivesDomain() Domain {
	d := testDomain()
	d.Disks[0].Boot = 0
	d.Disks[1] = Disk{Socket: "/srv/run/nbd-b.sock", Slot: 1, Bus: model.BusSATA, Size: 64 << 20, Serial: "0123456789abcdef", Boot: 3}
	d.CDROMs = []CDROM{
		{Bus: model.BusSATA},
		{Bus: model.BusSCSI, Socket: "/srv/run/cd-a.sock", Boot: 1},
		{Bus: model.BusSCSI, Slot: model.MaxCDROMs, Socket: "/srv/run/cd-seed.sock"},
	}
	d.NICs, d.Hardware = testNICs(), Hardware
	d.NICs[0].Boot = 2
	return d
}

func TestOrders(t *testing.T) {
	o := Orders([]string{"cdrom", "nic3", "disk2"})
	for _, tt := range []struct {
		kind  model.BootKind
		index int
		want  int
	}{
		{model.BootCDROM, 0, 1},
		{model.BootNIC, 2, 2},
		{model.BootDisk, 1, 3},
		{model.BootDisk, 0, 0},
		{model.BootCDROM, 1, 0},
	} {
		if got := o.Of(tt.kind, tt.index); got != tt.want {
			t.Errorf("Of(%s, %d) = %d, want %d", tt.kind, tt.index, got, tt.want)
		}
	}
}
