// Package desktop is the desktop app: a window with the same web app that every
// node serves, and a gateway on the loopback interface that carries its requests
// to the clusters over TLS pinned to each cluster's own CA.
package desktop

import (
	"context"
	"io"

	"github.com/wailsapp/wails/v2"
	"github.com/wailsapp/wails/v2/pkg/options"
	"github.com/wailsapp/wails/v2/pkg/options/assetserver"

	"drystone.example/drystone/frontend"
)

// Run is the whole program; it returns when the window is closed.
func Run(_ context.Context, _ []string, _, _ io.Writer) error {
	return wails.Run(&options.App{
		Title:       "Drystone",
		AssetServer: &assetserver.Options{Handler: frontend.Handler(frontend.Policy{})},
	})
}
