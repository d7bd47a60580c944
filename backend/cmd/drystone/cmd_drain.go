package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/client"
	"drystone.example/drystone/backend/model"
)

func newNodeDrain(a *app) *cobra.Command {
	var wait bool
	c := &cobra.Command{
		Use: "drain NODE", Short: "Move all machines off a node, and place none there",
		Long: `Moves all machines that run on a node to others, while they run, and places none there until
"drystone node undrain NODE", which also moves them back.

A machine that no other node takes stays, and is named with the reason; the others go. When none
is left the node can be stopped. What its disks have is then away: the other copies serve, and
nothing is rebuilt elsewhere for four hours, or for longer if rebuild-after is longer.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(c *client.Client) error {
				n, err := c.DrainNode(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if !wait {
					return show(a, n, printDrain)
				}
				n, err = a.settled(cmd.Context(), c, n, func(n schema.Node) (int, bool) {
					return left(n), n.Maintenance != nil
				})
				return shown(show(a, n, printDrain), err)
			})
		},
	}
	c.Flags().BoolVar(&wait, "wait", false, "wait until the node is empty, or only machines are left that cannot be moved, which is an error")
	return c
}

func newNodeUndrain(a *app) *cobra.Command {
	var wait bool
	c := &cobra.Command{
		Use: "undrain NODE", Short: "Let machines run on a node again, and move those back that a drain took away",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(c *client.Client) error {
				n, err := c.UndrainNode(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if !wait {
					return show(a, n, printUndrain)
				}
				n, err = a.settled(cmd.Context(), c, n, func(n schema.Node) (int, bool) {
					return n.Returning, n.Maintenance == nil
				})
				return shown(show(a, n, printUndrain), err)
			})
		},
	}
	c.Flags().BoolVar(&wait, "wait", false, "wait until they are back, or only such are left that cannot be moved, which is an error")
	return c
}

// shown prefers why nothing could be printed to why a wait ended.
func shown(printed, waited error) error {
	if printed != nil {
		return printed
	}
	return waited
}

// settled waits until no machine is left to be moved, or only such as cannot be. wish is how
// many are left, and whether that is wished still.
func (a *app) settled(ctx context.Context, c *client.Client, n schema.Node,
	wish func(schema.Node) (left int, still bool),
) (schema.Node, error) {
	stuck := 0 // how often in a row all that were left could not be moved
	for {
		left, still := wish(n)
		switch {
		case !still:
			return n, model.Errorf(model.Conflict, "somebody wishes otherwise for node %s meanwhile", n.Name)
		case left == 0:
			return n, nil
		case len(n.Stuck) >= left:
			if stuck++; stuck > stuckLooks {
				return n, model.Errorf(model.Conflict, "%d machines cannot be moved", left)
			}
		default:
			stuck = 0
		}
		select {
		case <-time.After(taskPoll):
		case <-ctx.Done():
			return n, fmt.Errorf("wait for node %s: %w", n.Name, ctx.Err())
		}
		now, err := c.Node(ctx, n.ID.String())
		switch {
		case err == nil:
			n = now
		case model.CodeOf(err) != model.Unavailable:
			return n, err
		}
	}
}

// stuckLooks is how often all machines left are seen to be stuck before it is believed:
// a machine that has just begun to move is so for a moment.
const stuckLooks = 10

func left(n schema.Node) int {
	if n.Maintenance == nil {
		return 0
	}
	return n.Maintenance.Left
}

func printDrain(w io.Writer, n schema.Node) {
	if left(n) == 0 {
		say(w, "node %s runs no machines\n", n.Name)
	} else {
		say(w, "node %s is being drained: %d machines run there\n", n.Name, left(n))
	}
	printStuck(w, n)
}

func printUndrain(w io.Writer, n schema.Node) {
	say(w, "machines may run on node %s\n", n.Name)
	if n.Returning > 0 {
		say(w, "%d machines come back\n", n.Returning)
	}
	printStuck(w, n)
}

// printStuck names the machines that are not moved though they should be.
func printStuck(w io.Writer, n schema.Node) {
	for _, s := range n.Stuck {
		say(w, "machine %s is not moved: %s\n", s.Name, s.Reason)
	}
}

// maintenance says how far a node is with being drained, or with machines' coming back.
func maintenance(n schema.Node) string {
	var each []string
	if m := n.Maintenance; m != nil {
		each = append(each, fmt.Sprintf("since %s, %d machines left, %d moved away", ago(m.Since), m.Left, m.Moved))
	}
	if n.Returning > 0 {
		each = append(each, fmt.Sprintf("%d machines come back", n.Returning))
	}
	return strings.Join(each, "; ")
}
