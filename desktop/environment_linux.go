package desktop

import (
	"fmt"
	"strings"
)

// prepareEnvironment makes the webview work where it otherwise shows nothing.
func prepareEnvironment(get func(string) string, set func(string, string) error) error {
	if err := prepareLocale(get, set); err != nil {
		return err
	}
	// Its renderer by DMA-BUF leaves the window blank on many NVIDIA and
	// virtual display drivers; the other one is fast enough for this page.
	return setAll(get, set, map[string]string{"WEBKIT_DISABLE_DMABUF_RENDERER": "1"})
}

// prepareLocale replaces the locale C: under it WebKitGTK says that the page's
// language is "C", which JavaScript's Intl refuses with an exception.
func prepareLocale(get func(string) string, set func(string, string) error) error {
	const good = "en_US.UTF-8"
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		value := get(name)
		if value == "" {
			continue
		}
		if value != "C" && value != "POSIX" && !strings.HasPrefix(value, "C.") {
			return nil
		}
		if err := set(name, good); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
		return nil
	}
	return setAll(get, set, map[string]string{"LANG": good})
}
