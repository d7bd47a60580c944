// Package agent is the hands of one node: it opens the node's disks, holds the
// volumes that its guests and exports use, makes libvirt match the record, and
// reports what it finds.
//
// It decides nothing about the cluster. What should be is in the record; the
// agent compares it with what is here and closes the gap, again and again, so
// that a restart at any point is only another comparison.
package agent
