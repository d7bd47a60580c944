package device

import (
	"os"
	"path/filepath"
	"testing"

	"drystone.example/drystone/backend/model"
)

// What smartctl prints for devices of all kinds is understood; what it cannot say is
// unknown, and takes nothing away from what the kernel said.
func TestReadSmart(t *testing.T) {
	kernel := model.Hardware{Model: "by the kernel", Serial: "k1", Health: model.HealthUnknown}
	for name, want := range map[string]model.Hardware{
		"sata":        {Model: "EXAMPLE HDD-4000", Serial: "E4K00017", Health: model.HealthGood},
		"nvme":        {Model: "EXAMPLE NVME-1T", Serial: "S5GXN0001", Health: model.HealthGood},
		"sas":         {Model: "EXAMPLE SAS600", Serial: "6SL0042", Health: model.HealthGood},
		"failing":     {Model: "EXAMPLE HDD-500", Serial: "Z3T0XXY1", Health: model.HealthFailing},
		"unsupported": {Model: "QEMU HARDDISK", Serial: "k1", Health: model.HealthUnknown},
		"standby":     kernel,
		"unknown":     kernel,
	} {
		text, err := os.ReadFile(filepath.Join("testdata", "smartctl", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		got := kernel
		if readSmart(text, &got); got != want {
			t.Errorf("%s: read %+v, want %+v", name, got, want)
		}
	}
	for _, text := range []string{"", "smartctl: command not found", `{"model_name": 7}`, "[]"} {
		got := kernel
		if readSmart([]byte(text), &got); got != kernel {
			t.Errorf("%q: read %+v, want %+v", text, got, kernel)
		}
	}
}

// A real device is asked by smartctl, whose exit status does not matter; where it is
// missing or fails, health is unknown and nothing else happens.
func TestHardware(t *testing.T) {
	dev := look(t, newDevice(t))
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	if got := dev.Hardware(t.Context()); got != (model.Hardware{Health: model.HealthUnknown}) {
		t.Errorf("without smartctl: %+v", got)
	}
	recorded, err := filepath.Abs("testdata/smartctl/failing.json")
	if err != nil {
		t.Fatal(err)
	}
	for script, want := range map[string]model.Hardware{
		"/bin/cat " + recorded + "; exit 24":                                    {Model: "EXAMPLE HDD-500", Serial: "Z3T0XXY1", Health: model.HealthFailing},
		"echo broken >&2; exit 1":                                               {Health: model.HealthUnknown},
		"for last; do :; done; echo \"{\\\"serial_number\\\": \\\"$last\\\"}\"": {Serial: dev.Path, Health: model.HealthUnknown},
	} {
		if err := os.WriteFile(filepath.Join(bin, "smartctl"), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		if got := dev.Hardware(t.Context()); got != want {
			t.Errorf("%s: %+v, want %+v", script, got, want)
		}
	}
}
