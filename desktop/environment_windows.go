package desktop

// prepareEnvironment keeps a dead system proxy from stalling the page, which only
// ever talks to the loopback interface.
func prepareEnvironment(get func(string) string, set func(string, string) error) error {
	return setAll(get, set, map[string]string{
		"WEBVIEW2_ADDITIONAL_BROWSER_ARGUMENTS": "--no-proxy-server",
	})
}
