package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"drystone.example/drystone/backend/model"
)

// GuestPrefix starts the name of every machine of ours in libvirt; the machine's
// identifier follows.
const GuestPrefix = "drystone-"

// A Guest is the QEMU process of one machine.
type Guest struct {
	VM model.VMID `json:"vm"`
	ID
}

// Guests finds the running QEMU processes of our machines by the pid files that
// libvirt keeps in a folder, without asking libvirt. A pid file whose process is
// gone, or is not the QEMU of that machine, is passed over. A folder that is not
// there holds none.
func Guests(dir string) ([]Guest, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find guests: %w", err)
	}
	var guests []Guest
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".pid")
		id, ours := strings.CutPrefix(name, GuestPrefix)
		if !ok || !ours {
			continue
		}
		vm, err := model.ParseID[model.VMID](id)
		if err != nil {
			continue
		}
		g, err := GuestOf(dir, vm)
		if model.CodeOf(err) == model.NotFound {
			continue
		}
		if err != nil {
			return guests, fmt.Errorf("find guests: %w", err)
		}
		guests = append(guests, g)
	}
	return guests, nil
}

// GuestOf finds the running QEMU process of one machine by libvirt's pid file in
// dir. The code is NotFound if it is not running.
func GuestOf(dir string, vm model.VMID) (Guest, error) {
	name := GuestPrefix + vm.String()
	b, err := os.ReadFile(filepath.Join(dir, name+".pid")) //nolint:gosec // libvirt's own
	if errors.Is(err, os.ErrNotExist) {
		return Guest{}, model.Errorf(model.NotFound, "machine %s is not running", vm)
	}
	if err != nil {
		return Guest{}, fmt.Errorf("find guest %s: %w", vm, err)
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(b)))
	if err != nil || pid <= 0 { // libvirt is writing it just now, or died doing so
		return Guest{}, model.Errorf(model.NotFound, "machine %s is not running", vm)
	}
	id, err := Of(pid)
	if err != nil {
		return Guest{}, err
	}
	if !isGuest(pid, name) || !id.Alive() {
		return Guest{}, model.Errorf(model.NotFound, "machine %s is not running", vm)
	}
	return Guest{VM: vm, ID: id}, nil
}

// isGuest reports whether a process is the QEMU that libvirt started under a
// name: it passes "-name guest=NAME,debug-threads=on".
func isGuest(pid int, name string) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return false
	}
	args := strings.Split(string(b), "\x00")
	for i, a := range args[:len(args)-1] {
		guest, _, _ := strings.Cut(args[i+1], ",")
		if a == "-name" && guest == "guest="+name {
			return true
		}
	}
	return false
}
