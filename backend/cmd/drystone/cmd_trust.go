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

func newRotateKey(a *app) *cobra.Command {
	var wait bool
	c := &cobra.Command{
		Use: "rotate-key", Short: "Replace the key that nodes hear each other by",
		Long: `Replaces the key that the nodes' gossip is encrypted with. Every node understands the new key
before one uses it, and the old one is forgotten when all use the new one. A node that is away
has the key when it is back. It is also done by itself whenever a node is removed or the
certificate authority is replaced.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(c *client.Client) error {
				k, err := c.RotateKey(cmd.Context())
				if err == nil && wait {
					k, err = until(cmd.Context(), k, c.GossipKey, func(k schema.GossipKey) bool { return k.Phase == schema.KeySettled })
				}
				if err != nil {
					return err
				}
				return show(a, k, printKey)
			})
		},
	}
	c.Flags().BoolVar(&wait, "wait", false, "wait until the old key is forgotten")
	return c
}

func printKey(w io.Writer, k schema.GossipKey) {
	if k.Phase == schema.KeySettled {
		say(w, "the gossip key is replaced\n")
		return
	}
	fields(w, "Phase", string(k.Phase), "Waits for", strings.Join(k.Waiting, ", "))
}

func newCA(a *app) *cobra.Command {
	one := &cobra.Command{
		Use: "show", Short: "Show the certificate authority, and how far its change is", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(c *client.Client) error {
				ca, err := c.CA(cmd.Context())
				if err != nil {
					return err
				}
				return show(a, ca, printCA)
			})
		},
	}
	return group("ca", "The cluster's certificate authority", one, newRotateCA(a))
}

func newRotateCA(a *app) *cobra.Command {
	var finish, wait, yes bool
	c := &cobra.Command{
		Use: "rotate", Short: "Replace the certificate authority",
		Long: `Makes a new root and gives every node certificates by it. The old root is trusted until every node
has them, those that are away too: they get theirs when they are back. "drystone ca show" says
which are waited for. Desktop apps, --ca files and join tokens that know the old root find the
new one by it, up to three rotations later.

With --finish the old root is dropped now. Nodes that are away and have no other certificates
cannot come back then; remove them and let them join again. Do so if the old root's key may have
been stolen, and introduce desktop apps anew: who has that key can vouch for a root of his own.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if finish && wait {
				return usagef("--finish and --wait exclude each other")
			}
			return a.with(cmd, func(c *client.Client) error {
				ca, err := a.changeCA(cmd.Context(), c, finish, wait, yes)
				if err != nil {
					return err
				}
				return show(a, ca, printCA)
			})
		},
	}
	c.Flags().BoolVar(&finish, "finish", false, "drop the old root, and leave nodes behind that are away")
	c.Flags().BoolVar(&wait, "wait", false, "wait until the old root is dropped")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

func (a *app) changeCA(ctx context.Context, c *client.Client, finish, wait, yes bool) (schema.CA, error) {
	if !finish {
		ca, err := c.RotateCA(ctx)
		if err != nil || !wait {
			return ca, err
		}
		return until(ctx, ca, c.CA, func(ca schema.CA) bool { return ca.Former == "" })
	}
	ca, err := c.CA(ctx)
	if err != nil {
		return ca, err
	}
	if len(ca.Waiting) > 0 {
		what := "lock out " + strings.Join(ca.Waiting, ", ") + " until they join again"
		if err := a.confirm(yes, what, ca.Waiting[0]); err != nil {
			return ca, err
		}
	}
	return c.FinishCA(ctx)
}

func printCA(w io.Writer, ca schema.CA) {
	fields(w,
		"Fingerprint", ca.Fingerprint, "Since", ca.Since.Local().Format(time.DateTime),
		"Expires", ca.Expires.Local().Format(time.DateTime),
		"Trusted still", ca.Former, "Waits for", strings.Join(ca.Waiting, ", "),
	)
}

// until asks again and again how something is, until it is done.
func until[T any](ctx context.Context, last T, ask func(context.Context) (T, error), done func(T) bool) (T, error) {
	for !done(last) {
		select {
		case <-time.After(taskPoll):
		case <-ctx.Done():
			return last, fmt.Errorf("wait for the end: %w", ctx.Err())
		}
		now, err := ask(ctx)
		switch {
		case err == nil:
			last = now
		case model.CodeOf(err) != model.Unavailable:
			return last, err
		}
	}
	return last, nil
}
