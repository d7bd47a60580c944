package dev

import (
	"context"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/proc"
)

// A Libvirt is a libvirtd with its virtlogd of one node of a development cluster.
// They live in a mount and a UTS namespace of their own, in which libvirt's
// folders are the node's, and outlive the process that started them.
type Libvirt struct {
	URI  string    // for virt.Config and virsh -c
	PIDs string    // the folder of its guests' pid files, for the guard
	Logs string    // libvirtd's own log
	Own  Processes // of the daemons
}

// Processes are a Libvirt's daemons.
type Processes struct {
	Libvirtd proc.ID `json:"libvirtd"`
	Virtlogd proc.ID `json:"virtlogd"`
}

// LibvirtInstalled returns nil if everything a Libvirt needs is on this machine,
// or says what is missing.
func LibvirtInstalled() error { return model.Errorf(model.Unavailable, "not built yet") }

// StartLibvirt starts the libvirtd of the node whose folder is dir, or returns
// the one that runs already. name becomes its host name and uuid its host UUID. It
// needs root. It returns when libvirtd answers.
func StartLibvirt(ctx context.Context, dir, name, uuid string) (*Libvirt, error) {
	return nil, model.Errorf(model.Unavailable, "not built yet")
}

// StopLibvirt ends the guests and the daemons of the node whose folder is dir,
// whoever started them. If nothing runs there that is no error.
func StopLibvirt(ctx context.Context, dir string) error {
	return model.Errorf(model.Unavailable, "not built yet")
}
