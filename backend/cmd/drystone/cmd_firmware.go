package main

import (
	"drystone.example/drystone/backend/api/schema"
)

const firmwareHelp = "what starts it: bios, uefi, or uefi-secure, which starts only what is signed with Microsoft's keys"

// firmwareOf says what starts a machine, and where that remembers what it does.
func firmwareOf(v schema.VM) string {
	if v.NVRAM == nil {
		return string(v.Firmware)
	}
	return string(v.Firmware) + ", remembers in " + v.NVRAM.Name
}
