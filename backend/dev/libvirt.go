package dev

import (
	"context"

	"drystone.example/drystone/backend/dev/libvirtd"
)

// A Libvirt is the libvirtd of one node; see package libvirtd.
type Libvirt = libvirtd.Daemon

// LibvirtInstalled returns nil if everything a Libvirt needs is on this machine,
// or says what is missing.
func LibvirtInstalled() error { return libvirtd.Installed() }

// StartLibvirt starts the libvirtd of the node whose folder is dir, or returns
// the one that runs already.
func StartLibvirt(ctx context.Context, dir, name, uuid string) (*Libvirt, error) {
	return libvirtd.Start(ctx, dir, name, uuid)
}

// StopLibvirt ends the guests and the daemons of the node whose folder is dir,
// whoever started them. If nothing runs there that is no error.
func StopLibvirt(ctx context.Context, dir string) error { return libvirtd.Stop(ctx, dir) }
