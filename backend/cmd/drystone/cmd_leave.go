package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/client"
	"drystone.example/drystone/backend/model"
)

func newDiskShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show DISK", Short: "Show a disk", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := model.ParseID[model.DiskID](args[0])
			if err != nil {
				return err
			}
			return a.with(cmd, func(c *client.Client) error {
				d, err := c.Disk(cmd.Context(), id)
				if err != nil {
					return err
				}
				return show(a, d, printDisk)
			})
		},
	}
}

func printDisk(w io.Writer, d schema.Disk) {
	leaves := ""
	if d.Drain != nil {
		leaves = drained(*d.Drain)
	}
	fields(w,
		"ID", d.ID.String(), "Node", d.NodeName, "Path", d.Path, "State", string(d.State), "Error", d.Error,
		"Size", size(d.Size), "Used", size(d.Used), "Columns", strconv.Itoa(d.Columns), "Leaves the pool", leaves,
		"Checksum errors", strconv.FormatUint(d.ChecksumErrors, 10),
		"Repaired", strconv.FormatUint(d.Repaired, 10), "Scrubbed", scrubbed(d),
		"Model", hardware(d).Model, "Serial", hardware(d).Serial, "Health", health(d),
		"Map in memory", mapCache(d.MapCache),
	)
}

// drained says how far a disk is with leaving.
func drained(d schema.DiskDrain) string {
	text := fmt.Sprintf("%d of %d columns moved", d.Total-d.Left, d.Total)
	if d.Errors > 0 {
		text = fmt.Sprintf("retired for %d damaged blocks; %s", d.Errors, text)
	}
	if d.Seconds > 0 {
		text += fmt.Sprintf(", about %s left", time.Duration(d.Seconds)*time.Second)
	}
	if d.Blocked != "" {
		text += "; waits: " + d.Blocked
	}
	return text
}

func newDiskRemove(a *app) *cobra.Command {
	var cancel, wait bool
	c := &cobra.Command{
		Use: "remove DISK", Short: "Move what is on a disk elsewhere, and take it out of the pool then",
		Long: `Moves what is on a disk elsewhere, and takes the disk out of the pool when it is empty.

Copies are made before the ones on the disk go, so that there are never fewer than before;
volumes go on being used. "drystone disk show DISK" says how far it is and what it waits for.
A disk that has failed leaves when what it had is rebuilt. Its file or device is left as it is.

A disk of which 100 blocks were found damaged is emptied by itself, and stays listed: "disk
remove" takes it out of the pool, "disk remove --cancel" lets it stay until 100 more are.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := model.ParseID[model.DiskID](args[0])
			if err != nil {
				return err
			}
			if cancel && wait {
				return usagef("--cancel and --wait exclude each other")
			}
			return a.with(cmd, func(c *client.Client) error { return a.drainDisk(cmd.Context(), c, id, cancel, wait) })
		},
	}
	c.Flags().BoolVar(&cancel, "cancel", false, "let the disk stay after all; what has moved is not moved back at once")
	c.Flags().BoolVar(&wait, "wait", false, "wait until the disk has left")
	return c
}

func (a *app) drainDisk(ctx context.Context, c *client.Client, id model.DiskID, cancel, wait bool) error {
	if cancel {
		d, err := c.KeepDisk(ctx, id)
		if err != nil {
			return err
		}
		return show(a, d, func(w io.Writer, d schema.Disk) { say(w, "disk %s stays in the pool\n", d.ID) })
	}
	d, err := c.DrainDisk(ctx, id)
	if err != nil {
		return err
	}
	if wait {
		if d, err = gone(ctx, c, d); err != nil {
			return err
		}
		return show(a, d, func(w io.Writer, d schema.Disk) { say(w, "disk %s has left the pool\n", d.ID) })
	}
	return show(a, d, func(w io.Writer, d schema.Disk) {
		say(w, "disk %s leaves the pool when it is empty: %d columns to move\n", d.ID, d.Columns)
	})
}

// gone waits until a disk has left the pool, and returns it as it was seen last.
func gone(ctx context.Context, c *client.Client, d schema.Disk) (schema.Disk, error) {
	for {
		now, err := c.Disk(ctx, d.ID)
		switch {
		case model.CodeOf(err) == model.NotFound:
			return d, nil
		case err != nil && model.CodeOf(err) != model.Unavailable:
			return d, err
		case err == nil && now.Drain == nil:
			return d, model.Errorf(model.Conflict, "somebody lets the disk stay in the pool")
		case err == nil:
			d = now
		}
		select {
		case <-time.After(taskPoll):
		case <-ctx.Done():
			return d, fmt.Errorf("wait for disk %s: %w", d.ID, ctx.Err())
		}
	}
}

func newCluster(a *app) *cobra.Command {
	one := &cobra.Command{
		Use: "show", Short: "Show the cluster's settings", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(c *client.Client) error {
				cluster, err := c.Cluster(cmd.Context())
				if err != nil {
					return err
				}
				return show(a, cluster.Settings, printSettings)
			})
		},
	}
	set := &cobra.Command{
		Use: "set KEY VALUE", Short: "Change a setting of the cluster",
		Long: `Changes a setting of the cluster:

  balance        on or off: data moves by itself to make the disks evenly full, and machines to
                 make the nodes evenly busy, to the node they prefer, and apart
  rebuild-after  such as 10m: how long a node may be away before what it had is rebuilt elsewhere`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			change, err := settingOf(args[0], args[1])
			if err != nil {
				return err
			}
			return a.with(cmd, func(c *client.Client) error {
				s, err := c.ChangeCluster(cmd.Context(), change)
				if err != nil {
					return err
				}
				return show(a, s, printSettings)
			})
		},
	}
	return group("cluster", "Settings of the cluster", one, set, newRotateKey(a))
}

func settingOf(key, value string) (s schema.SettingsChange, err error) {
	switch key {
	case "balance":
		on := value == "on"
		if !on && value != "off" {
			return s, usagef("balance is on or off, not %q", value)
		}
		s.Balance = &on
	case "rebuild-after":
		d, err := time.ParseDuration(value)
		if err != nil {
			return s, usagef("rebuild-after is a time such as 10m, not %q", value)
		}
		seconds := int64(d.Seconds())
		s.RebuildAfter = &seconds
	default:
		return s, usagef("there is no setting %q; there are balance and rebuild-after", key)
	}
	return s, nil
}

func printSettings(w io.Writer, s schema.Settings) {
	balance := "off"
	if s.Balance {
		balance = "on"
	}
	fields(w, "balance", balance, "rebuild-after", (time.Duration(s.RebuildAfter) * time.Second).String())
}

// moving says how far the moving of data is, or nothing.
func moving(m schema.Moves) string {
	if m.Left == 0 {
		return m.Waits
	}
	text := fmt.Sprintf("%d columns to move, %d on their way", m.Left, m.UnderWay)
	if m.Seconds > 0 {
		text += fmt.Sprintf(", about %s left", time.Duration(m.Seconds)*time.Second)
	}
	if m.Waits != "" {
		text += "; balance waits: " + m.Waits
	}
	return text
}
