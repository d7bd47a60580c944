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
)

func newSnapshotDelete(a *app) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "delete VOLUME@SNAPSHOT", Short: "Delete a snapshot; its space is freed in the background",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(c *client.Client) error {
				s, err := c.Snapshot(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if err := a.confirm(yes, "delete the snapshot", s.Name); err != nil {
					return err
				}
				if err := c.DeleteSnapshot(cmd.Context(), s.ID.String()); err != nil {
					return err
				}
				a.said("snapshot %s@%s is deleted", s.VolumeName, s.Name)
				return nil
			})
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

func newSnapshotRevert(a *app) *cobra.Command {
	var yes, cancel bool
	var spec schema.RevertSpec
	c := &cobra.Command{
		Use: "revert VOLUME@SNAPSHOT", Short: "Make a volume what it was when a snapshot was cut",
		Long: `Make a volume what it was when a snapshot was cut, its size included.

The volume must not be in use, and cannot be used until that is done. It is kept as it is
now as another snapshot first, unless --no-snapshot is given; all snapshots stay. The command
waits for the end; the work goes on if it is interrupted. While nothing was changed yet,
"revert VOLUME --cancel" leaves the volume as it is; later, revert it to another snapshot.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cancel == strings.Contains(args[0], "@") {
				return usagef("give VOLUME@SNAPSHOT, or a volume and --cancel")
			}
			return a.with(cmd, func(c *client.Client) error {
				ctx := cmd.Context()
				if cancel {
					if err := c.CancelRevert(ctx, args[0]); err != nil {
						return err
					}
					v, err := c.Volume(ctx, args[0])
					if err != nil {
						return err
					}
					return show(a, v, func(w io.Writer, v schema.Volume) { say(w, "volume %s stays as it is\n", v.Name) })
				}
				s, err := c.Snapshot(ctx, args[0])
				if err != nil {
					return err
				}
				if err := a.confirm(yes, "replace what is on the volume", s.VolumeName); err != nil {
					return err
				}
				v, err := c.RevertSnapshot(ctx, s.ID.String(), spec)
				if err != nil {
					return err
				}
				if v, err = a.reverted(ctx, c, v); err != nil {
					return err
				}
				return show(a, v, func(w io.Writer, v schema.Volume) {
					say(w, "volume %s is what it was in %s\n", v.Name, s.Name)
				})
			})
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Flags().BoolVar(&cancel, "cancel", false, "leave the volume as it is, if nothing was changed yet")
	c.Flags().BoolVar(&spec.NoSnapshot, "no-snapshot", false, "do not keep the volume as it is now")
	c.Flags().StringVar(&spec.Snapshot, "snapshot", "", "name of the snapshot of the volume as it is now")
	return c
}

// reverted waits until a volume is not being reverted any more.
func (a *app) reverted(ctx context.Context, c *client.Client, v schema.Volume) (schema.Volume, error) {
	b := &bar{a: a}
	defer b.end()
	for v.Tending != nil && v.Tending.Kind == schema.Reverting {
		b.set(string(v.Tending.Kind), int64(v.Tending.Done), int64(v.Tending.Total))
		select {
		case <-time.After(taskPoll):
		case <-ctx.Done():
			return v, ctx.Err()
		}
		now, err := c.Volume(ctx, v.ID.String())
		if err != nil {
			return v, err
		}
		v = now
	}
	return v, nil
}

func tendingLabel(t *schema.Tending) string {
	switch {
	case t == nil:
		return ""
	case t.Kind == schema.Reverting:
		return "Reverting"
	}
	return "Freeing"
}

// tendingText says how far it is, or nothing if there is nothing.
func tendingText(t *schema.Tending) string {
	if t == nil {
		return ""
	}
	text := "waits for a node"
	switch {
	case t.Error != "":
		text = t.Error
	case t.Total > 0:
		text = fmt.Sprintf("%d%%", 100*t.Done/t.Total)
	}
	if t.Snapshot != "" {
		text = "to " + t.Snapshot + ", " + text
	}
	return text
}
