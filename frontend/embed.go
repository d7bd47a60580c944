// Package frontend is the web app as bytes: what `npm run build` left in
// dist/app, embedded into both binaries, and the handler that serves it with
// the headers a browser needs to keep strangers out.
//
// A checkout that has not built the web app still compiles: dist then holds one
// committed page that says what to run.
package frontend

import (
	"embed"
	"io/fs"
)

//go:embed all:dist
var dist embed.FS

// Built reports whether the web app itself is embedded, and not only the page
// that says how to build it.
func Built() bool {
	_, err := fs.Stat(dist, "dist/app/index.html")
	return err == nil
}

// FS is the web app's files with index.html at the root.
func FS() fs.FS {
	root := "dist"
	if Built() {
		root = "dist/app"
	}
	sub, err := fs.Sub(dist, root)
	if err != nil {
		return dist // fs.Sub refuses invalid paths only, and both are constants
	}
	return sub
}
