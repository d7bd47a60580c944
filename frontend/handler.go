package frontend

import (
	"io/fs"
	"net/http"
	"path"
	"strings"
)

// A Policy says what the page may talk to besides the place it came from.
type Policy struct {
	// Connect are further sources for the connect-src directive, for example
	// "http://127.0.0.1:*" in the desktop's window.
	Connect []string
}

// Handler serves the web app. Files with a digest in their name (everything
// under assets/) are cached for ever, all others are asked for again each time.
// Only GET and HEAD are answered. Unknown paths are 404: the app routes by
// fragment, so no path of its own needs index.html.
func Handler(p Policy) http.Handler {
	files := FS()
	server := http.FileServerFS(files)
	csp := p.contentSecurityPolicy()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
		if name == "" {
			name = "index.html"
		}
		// A folder is not a page: FileServer would list it.
		if info, err := fs.Stat(files, name); err != nil || info.IsDir() {
			http.NotFound(w, r)
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", csp)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-cache")
		if strings.HasPrefix(name, "assets/") {
			h.Set("Cache-Control", "public, max-age=31536000, immutable")
		}
		server.ServeHTTP(w, r)
	})
}

// contentSecurityPolicy allows nothing from elsewhere and no inline script.
// Inline style stays allowed: the component library and the charts position
// things with style attributes, which cannot run code.
func (p Policy) contentSecurityPolicy() string {
	connect := append([]string{"'self'"}, p.Connect...)
	return strings.Join([]string{
		"default-src 'self'",
		"script-src 'self'",
		"style-src 'self' 'unsafe-inline'",
		"img-src 'self' data:",
		"font-src 'self'",
		"connect-src " + strings.Join(connect, " "),
		"object-src 'none'",
		"base-uri 'none'",
		"form-action 'none'",
		"frame-ancestors 'none'",
	}, "; ")
}
