// Command drystone sets nodes up and does, from a terminal or a script, all that
// the web page can do.
//
// It exits with 0 when done, 1 when the cluster refused or failed, 2 when it was
// called wrongly, and 3 when the cluster could not be asked (no leader, no quorum,
// node away). With --json it prints exactly the API's object.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
