//go:build !linux && !windows

package desktop

// prepareEnvironment has nothing to do on this system.
func prepareEnvironment(func(string) string, func(string, string) error) error { return nil }
