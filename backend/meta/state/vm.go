package state

import (
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/model"
)

// maxReason bounds what a node may say about a machine.
const maxReason = 500

func vmObject(v model.VM) string { return "vm " + v.ID.String() + " " + v.Name }

func (x *tx) vmCreate(c command.VMCreate) (any, error) {
	vm := model.VM{
		ID: c.ID, Name: c.Name, CPUs: c.CPUs, Memory: c.Memory, Priority: c.Priority, Disks: c.Disks, Boot: c.Boot,
		NICs: addNICs(nil, c.NICs), Tags: c.Tags, Description: c.Description, CDROMs: c.CDROMs,
		Firmware: c.Firmware, NVRAM: c.NVRAM,
		Power: model.PowerOff, Status: model.VMStatus{State: model.VMStopped, Since: x.at}, Created: x.at,
	}
	x.object = vmObject(vm)
	if _, taken := x.vms.get(c.ID); taken || c.ID == 0 {
		return nil, model.Errorf(model.Conflict, "the identifier %s is a vm already", c.ID)
	}
	if err := x.drivesCreate(&vm, c); err != nil {
		return nil, err
	}
	if err := x.validVM(vm); err != nil {
		return nil, err
	}
	return vm, put(x, &x.vms, vm)
}

// validVM holds what a machine must be, also against the other rows.
func (x *tx) validVM(vm model.VM) error {
	if err := vm.Validate(); err != nil {
		return err
	}
	if other, taken := x.vms.names[lower(vm.Name)]; taken && other != vm.ID {
		return model.Errorf(model.Conflict, "there is already a vm named %q", vm.Name)
	}
	for i, d := range vm.Disks {
		v, err := x.volumes.find(d.Volume)
		if err != nil {
			return err
		}
		if (model.VM{Disks: vm.Disks[:i]}).HasDisk(d.Volume) {
			return model.Errorf(model.Invalid, "the volume %q is given twice", v.Name)
		}
		if other, attached := vmOf(x.vms, d.Volume); attached && other.ID != vm.ID {
			return model.Errorf(model.Conflict, "the volume %q belongs to the vm %q", v.Name, other.Name)
		}
	}
	if err := x.validNVRAM(vm); err != nil {
		return err
	}
	if err := x.validDrives(vm); err != nil {
		return err
	}
	return x.validNICs(vm)
}

// isOff reports whether a machine neither runs nor shall run.
func isOff(vm model.VM) bool {
	return vm.Power == model.PowerOff && atRest(vm)
}

// atRest reports whether a machine runs nowhere, by the word of its node.
func atRest(vm model.VM) bool {
	return vm.Node == 0 || vm.Status.State == model.VMStopped || vm.Status.State == model.VMFailed
}

func (x *tx) vmUpdate(c command.VMUpdate) (any, error) {
	vm, err := x.vms.find(c.VM)
	if err != nil {
		return nil, err
	}
	x.object = vmObject(vm)
	if err := x.wish(&vm.Affinity, &c); err != nil {
		return nil, err
	}
	limit(&vm.Limits, c)
	if c.NeedsOff() && !isOff(vm) {
		return nil, model.Errorf(model.Conflict, "the vm %q is not off", vm.Name)
	}
	if c.Priority != nil {
		vm.Priority = *c.Priority
	}
	if c.Tags != nil {
		vm.Tags = *c.Tags
	}
	if c.Description != nil {
		vm.Description = *c.Description
	}
	if c.HasNICs() {
		if err := changeNICs(&vm, c); err != nil {
			return nil, err
		}
	}
	if c.HasDisks() {
		if err := x.changeDisks(&vm, c); err != nil {
			return nil, err
		}
	}
	if c.Name != nil {
		vm.Name = *c.Name
	}
	if c.CPUs != nil {
		vm.CPUs = *c.CPUs
	}
	if c.Memory != nil {
		vm.Memory = *c.Memory
	}
	if c.Disks != nil {
		vm.Disks = *c.Disks
	}
	if c.Boot != nil {
		vm.Boot = c.Boot
	}
	if err := x.changeFirmware(&vm, c); err != nil {
		return nil, err
	}
	if err := x.drivesUpdate(&vm, c); err != nil {
		return nil, err
	}
	if err := x.validVM(vm); err != nil {
		return nil, err
	}
	return vm, put(x, &x.vms, vm)
}

// limit changes what is wished of a machine's limits.
func limit(l *model.IOLimits, c command.VMUpdate) {
	if c.IOPS != nil {
		l.IOPS = *c.IOPS
	}
	if c.IOBytes != nil {
		l.Bytes = *c.IOBytes
	}
	if c.IOBurst != nil {
		l.Burst = *c.IOBurst
	}
}

func (x *tx) vmPower(c command.VMPower) (any, error) {
	vm, err := x.vms.find(c.VM)
	if err != nil {
		return nil, err
	}
	x.object = vmObject(vm)
	old := vm
	switch c.Power {
	case model.PowerOff:
		vm.Home = 0 // where it starts next is a new question
	case model.PowerOn:
		for _, id := range vm.Volumes() {
			if v, there := x.volumes.get(id); there && v.Revert.Due() {
				return nil, reverting(v)
			}
		}
		if c.Node != 0 && c.Node != vm.Node {
			if _, err := x.nodes.find(c.Node); err != nil {
				return nil, err
			}
			if !atRest(vm) || vm.Power == model.PowerOn && vm.Node != 0 {
				return nil, model.Errorf(model.Conflict, "the vm %q is on %s already", vm.Name, x.nodeName(vm.Node))
			}
			vm.Node = c.Node
		}
		if old.Power != model.PowerOn && atRest(vm) {
			if err := x.takes(vm.Node, vm); err != nil {
				return nil, err
			}
		}
		if vm.Node != 0 && atRest(vm) {
			// From now on it may be running there, whatever was last reported. A
			// machine that failed is tried again by the same.
			vm.Status = model.VMStatus{State: model.VMStarting, Node: vm.Node, Since: x.at}
		}
	default:
		return nil, model.Errorf(model.Invalid, "%q is not something a vm can be asked to be", c.Power)
	}
	vm.Power = c.Power
	if vm.Power == old.Power && vm.Node == old.Node && vm.Status == old.Status && vm.Home == old.Home {
		return vm, nil
	}
	return vm, put(x, &x.vms, vm)
}

func (x *tx) vmPlace(c command.VMPlace) (any, error) {
	vm, err := x.vms.find(c.VM)
	if err != nil {
		return nil, err
	}
	x.object = vmObject(vm)
	if vm.Node != c.Expected {
		return vm, model.Errorf(model.Conflict, "the vm %q is placed on %s", vm.Name, x.nodeName(vm.Node))
	}
	if c.Node != 0 {
		if _, err := x.nodes.find(c.Node); err != nil {
			return nil, err
		}
	}
	if vm.Node == c.Node {
		return vm, nil
	}
	if err := x.takes(c.Node, vm); err != nil {
		return nil, err
	}
	vm.Node, vm.Migration = c.Node, nil
	vm.Status = model.VMStatus{State: model.VMStopped, Node: c.Node, Since: x.at}
	if vm.Power == model.PowerOn && c.Node != 0 {
		vm.Status.State = model.VMStarting
	}
	return vm, put(x, &x.vms, vm)
}

func (x *tx) vmReport(c command.VMReport) (any, error) {
	vm, err := x.vms.find(c.VM)
	if err != nil {
		return nil, err
	}
	x.object = vmObject(vm)
	if vm.Node != c.Node || c.Node == 0 {
		return vm, model.Errorf(model.Conflict, "the vm %q is not placed on %s", vm.Name, x.nodeName(c.Node))
	}
	switch c.State {
	case model.VMStopped, model.VMStarting, model.VMRunning, model.VMStopping, model.VMFailed, model.VMUnknown:
	default:
		return nil, model.Errorf(model.Invalid, "%q is not a state of a vm", c.State)
	}
	if len(c.Reason) > maxReason {
		c.Reason = c.Reason[:maxReason]
	}
	s := model.VMStatus{State: c.State, Node: c.Node, Reason: c.Reason, Since: vm.Status.Since}
	if s == vm.Status {
		return vm, nil
	}
	if s.State != vm.Status.State || s.Node != vm.Status.Node {
		s.Since = x.at
	}
	vm.Status = s
	return vm, put(x, &x.vms, vm)
}

func (x *tx) vmMigrate(c command.VMMigrate) (any, error) {
	vm, err := x.vms.find(c.VM)
	if err != nil {
		return nil, err
	}
	x.object = vmObject(vm)
	switch {
	case vm.Migration != nil && vm.Migration.Task == c.Task:
		return vm, nil
	case vm.Migration != nil:
		return nil, model.Errorf(model.Conflict, "the vm %q is being migrated to %s already", vm.Name, x.nodeName(vm.Migration.To))
	case vm.Node != c.From || vm.Power != model.PowerOn || vm.Status.State != model.VMRunning:
		return nil, model.Errorf(model.Conflict, "the vm %q does not run on %s", vm.Name, x.nodeName(c.From))
	case c.To == c.From:
		return nil, model.Errorf(model.Invalid, "the vm %q runs on %s already", vm.Name, x.nodeName(c.To))
	case c.Task == 0:
		return nil, model.Errorf(model.Invalid, "a migration needs an identifier")
	}
	if _, err := x.nodes.find(c.To); err != nil {
		return nil, err
	}
	if err := x.takes(c.To, vm); err != nil {
		return nil, err
	}
	switch c.For {
	case model.MoveAsked, model.MoveDrain, model.MoveReturn, model.MoveBalance:
	default:
		return nil, model.Errorf(model.Invalid, "%q is not a reason to move a vm", c.For)
	}
	vm.Migration = &model.Migration{Task: c.Task, To: c.To, Began: x.at, For: c.For}
	return vm, put(x, &x.vms, vm)
}

func (x *tx) vmMigrateEnd(c command.VMMigrateEnd) (any, error) {
	vm, err := x.vms.find(c.VM)
	if err != nil {
		return nil, err
	}
	x.object = vmObject(vm)
	if vm.Migration == nil || vm.Migration.Task != c.Task || vm.Node != c.From {
		return vm, model.Errorf(model.Conflict, "the migration of the vm %q is not under way any more", vm.Name)
	}
	if c.Moved {
		vm.Moved = model.Moved{At: x.at, For: vm.Migration.For}
		switch {
		case vm.Migration.For != model.MoveDrain || vm.Home == vm.Migration.To:
			vm.Home = 0
		case vm.Home == 0:
			vm.Home = vm.Node
		}
		vm.Node = vm.Migration.To
		vm.Status = model.VMStatus{State: model.VMRunning, Node: vm.Node, Since: vm.Status.Since}
	}
	vm.Migration = nil
	return vm, put(x, &x.vms, vm)
}

func (x *tx) vmDelete(c command.VMDelete) (any, error) {
	vm, err := x.vms.find(c.VM)
	if err != nil {
		return nil, err
	}
	x.object = vmObject(vm)
	if !isOff(vm) {
		return nil, model.Errorf(model.Conflict, "the vm %q is not off", vm.Name)
	}
	drop(x, &x.vms, vm.ID)
	drop(x, &x.seeds, vm.ID)
	if !c.Disks {
		return vm, nil
	}
	for _, id := range vm.Volumes() {
		v, err := x.volumes.find(id)
		if err != nil {
			return nil, err
		}
		if err := x.forgetVolume(v); err != nil {
			return nil, err
		}
	}
	return vm, nil
}

// vmConsole is for the audit log alone. A console of a machine that was deleted can
// still be closed.
func (x *tx) vmConsole(c command.VMConsole) error {
	if c.Console != "screen" && c.Console != "serial" {
		return model.Errorf(model.Invalid, "a machine has no console of the kind %.20q", c.Console)
	}
	vm, ok := x.vms.get(c.VM)
	switch {
	case ok:
		x.object = vmObject(vm)
	case !c.Closed:
		return model.Errorf(model.NotFound, "there is no vm %s", c.VM)
	}
	what := " opened to watch"
	switch {
	case c.Closed:
		what = " closed"
	case c.Writes:
		what = " opened"
	}
	x.object += " " + c.Console + what
	x.fact = true
	return nil
}
