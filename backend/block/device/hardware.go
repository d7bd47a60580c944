package device

import (
	"context"
	"encoding/json"
	"os/exec"
	"strings"
	"time"

	"drystone.example/drystone/backend/model"
)

// smartTimeout bounds how long a device is waited for: a dying one may never answer.
const smartTimeout = 20 * time.Second

// Hardware says what the device is and what it thinks of itself, by smartctl if that is
// installed, else by what the kernel read from it. What cannot be known is empty, and
// health that cannot be is unknown: that is never an error, for a disk serves without it.
// A device that sleeps is not woken.
func (d Device) Hardware(ctx context.Context) model.Hardware {
	h := model.Hardware{
		Model:  strings.Join(strings.Fields(text(d.sys, "device/vendor")+" "+text(d.sys, "device/model")), " "),
		Serial: text(d.sys, "device/serial"), Health: model.HealthUnknown,
	}
	ctx, cancel := context.WithTimeout(ctx, smartTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "smartctl", //nolint:gosec // a tool we name, on a device of the kernel's
		"--json", "--info", "--health", "--nocheck=standby", d.Path)
	cmd.WaitDelay = time.Second
	out, _ := cmd.Output() // its exit status is made of bits, some of which mean that it worked
	readSmart(out, &h)
	return h
}

// readSmart adds what smartctl printed.
func readSmart(out []byte, h *model.Hardware) {
	var said struct {
		Model     string `json:"model_name"`
		SCSIModel string `json:"scsi_model_name"`
		Serial    string `json:"serial_number"`
		Status    *struct {
			Passed *bool `json:"passed"`
		} `json:"smart_status"`
	}
	if json.Unmarshal(out, &said) != nil {
		return
	}
	if said.Model == "" {
		said.Model = said.SCSIModel
	}
	if said.Model != "" {
		h.Model = said.Model
	}
	if said.Serial != "" {
		h.Serial = said.Serial
	}
	switch {
	case said.Status == nil || said.Status.Passed == nil:
	case *said.Status.Passed:
		h.Health = model.HealthGood
	default:
		h.Health = model.HealthFailing
	}
}
