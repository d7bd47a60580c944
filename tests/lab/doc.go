// Package lab holds the tests of what becomes of guests when machines fail: three hosts
// made of namespaces (tests/internal/hosts), each a real node with a libvirtd of its own,
// and small guests that verify their disks all the time. `go test ./tests/lab` runs what is
// short; -lab.all runs all of it (make lab).
package lab
