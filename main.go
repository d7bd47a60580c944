// Command drystone-desktop is the desktop app: one window onto many clusters.
// It lies at the root because Wails builds the package beside wails.json.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"drystone.example/drystone/desktop"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := desktop.Run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "drystone-desktop:", err)
		os.Exit(1)
	}
}
