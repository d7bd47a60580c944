// Command drystoned is the node daemon.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

func main() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(processors(runtime.GOMAXPROCS(0)))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newRoot().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "drystoned:", err)
		os.Exit(1)
	}
}

// processors is how many of a node's the daemon uses at one time: half of them, for
// the node is there for its guests. Fewer of them also cost less, because work that
// comes in small pieces wakes no second thread for each (docs/PERFORMANCE.md).
func processors(all int) int { return max(1, all/2) }
