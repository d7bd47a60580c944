package virt

import "drystone.example/drystone/backend/model"

// An Accelerator is what runs a guest's code.
type Accelerator string

// The accelerators, complete. Auto is KVM where it really runs guests, else TCG:
// /dev/kvm may be there and still not run any (nested virtualisation).
const (
	Auto Accelerator = "auto"
	KVM  Accelerator = "kvm"
	TCG  Accelerator = "tcg"
)

// ParseAccelerator reads a setting.
func ParseAccelerator(s string) (Accelerator, error) {
	switch a := Accelerator(s); a {
	case Auto, KVM, TCG:
		return a, nil
	default:
		return "", model.Errorf(model.Invalid, "the accelerator is auto, kvm or tcg, not %q", s)
	}
}
