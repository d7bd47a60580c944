package main

import (
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/client"
)

func newSnapshot(a *app) *cobra.Command {
	create := &cobra.Command{
		Use: "create VOLUME NAME", Short: "Keep a volume as it is now, also while it is written to",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(c *client.Client) error {
				s, err := c.CreateSnapshot(cmd.Context(), args[0], schema.SnapshotSpec{Name: args[1]})
				if err != nil {
					return err
				}
				return show(a, s, func(w io.Writer, s schema.Snapshot) {
					say(w, "snapshot %s@%s is made\n", s.VolumeName, s.Name)
				})
			})
		},
	}
	all := &cobra.Command{
		Use: "list [VOLUME]", Short: "List the snapshots, oldest first", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(c *client.Client) error {
				snaps, err := c.Snapshots(cmd.Context(), append(args, "")[0])
				if err != nil {
					return err
				}
				return list(a, snaps, "There are no snapshots.", snapshotHeader, snapshotRow)
			})
		},
	}
	one := &cobra.Command{
		Use: "show VOLUME@NAME", Short: "Show a snapshot, by that or by its identifier", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(c *client.Client) error {
				s, err := c.Snapshot(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return show(a, s, func(w io.Writer, s schema.Snapshot) {
					fields(w,
						"Name", s.Name, "ID", s.ID.String(), "Volume", s.VolumeName, "Size", size(s.Size),
						"Epoch", strconv.FormatUint(uint64(s.Epoch), 10), "Created", s.Created.Format(time.RFC3339),
						"Group", groupOf(s),
					)
				})
			})
		},
	}
	return group("snapshot", "Volumes as they were",
		create, all, one, newSnapshotDelete(a), newSnapshotRevert(a), newSnapshotExport(a), newSnapshotDiff(a))
}

const snapshotHeader = "VOLUME NAME ID SIZE CREATED GROUP"

func snapshotRow(s schema.Snapshot) []string {
	return []string{s.VolumeName, s.Name, s.ID.String(), size(s.Size), s.Created.Format(time.RFC3339), groupOf(s)}
}

// groupOf is what the snapshots that were cut at one moment have in common.
func groupOf(s schema.Snapshot) string {
	if s.Group == 0 {
		return ""
	}
	return s.Group.String()
}
