//go:build !linux

package wire

import "syscall"

// setUserTimeout does nothing: keepalive alone finds a dead peer here.
func setUserTimeout(_, _ string, _ syscall.RawConn) error { return nil }
