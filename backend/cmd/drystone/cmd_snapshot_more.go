package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/client"
	"drystone.example/drystone/backend/model"
)

func newVMSnapshot(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "snapshot VM NAME", Short: "Keep all disks of a machine as they are at one moment, also while it runs",
		Long: "Makes a snapshot of each disk of a machine, all of the same moment and with the same name, or of none.\n" +
			"`drystone snapshot list` shows which belong together.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(c *client.Client) error {
				snaps, err := c.CreateVMSnapshots(cmd.Context(), args[0], schema.SnapshotSpec{Name: args[1]})
				if err != nil {
					return err
				}
				return list(a, snaps, "There are no disks.", snapshotHeader, snapshotRow)
			})
		},
	}
}

func newSnapshotExport(a *app) *cobra.Command {
	var node, nbd string
	c := &cobra.Command{
		Use:   "export VOLUME@NAME --nbd SOCKET",
		Short: "Serve a snapshot for reading to a program on a node until interrupted",
		Long: "Serves a snapshot from a node at a UNIX socket, prints one line \"ready URI\" when programs can connect,\n" +
			"and goes on until it is interrupted or the snapshot is deleted. The volume may be in use meanwhile, on any node.\n" +
			"Beside base:allocation there is a context drystone:dirty-since-NAME for each older snapshot of the volume.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if nbd == "" {
				return usagef("--nbd is needed, with the path of a socket")
			}
			path, err := filepath.Abs(nbd)
			if err != nil {
				return fmt.Errorf("make the path absolute: %w", err)
			}
			spec := schema.ExportSpec{Kind: schema.ExportNBD, Path: path}
			return a.on(cmd, node, func(c *client.Client) error {
				return c.ExportSnapshot(cmd.Context(), args[0], spec, func(uri string) { say(a.out, "ready %s\n", uri) })
			})
		},
	}
	c.Flags().StringVar(&node, "node", "", "serve it from this node")
	c.Flags().StringVar(&nbd, "nbd", "", "serve NBD at this socket")
	return c
}

func newSnapshotDiff(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "diff VOLUME@A [VOLUME@B]",
		Short: "List what was changed from a snapshot to a later one, or to now",
		Long: "Lists the ranges of a volume that were written or discarded after the first snapshot, up to the second one or,\n" +
			"without it, up to now: offset and length in bytes, in whole pages of 64 KiB. Everything else is the same on both\n" +
			"sides; what the volume has grown by in between and is not listed reads as zeros.",
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(c *client.Client) error {
				d := diffPrinter{out: bufio.NewWriter(a.out), json: a.json, bar: a.progress("compare")}
				defer d.bar.end()
				if err := c.DiffSnapshot(cmd.Context(), args[0], append(args[1:], "")[0], d.line); err != nil {
					return err
				}
				d.bar.end()
				return d.end()
			})
		},
	}
}

// A diffPrinter prints the lines of a diff as they come; as JSON all of them make one
// object.
type diffPrinter struct {
	out     *bufio.Writer
	json    bool
	bar     *bar
	head    *schema.SnapshotDiff
	ranges  int
	changed model.Bytes
	done    model.Bytes
}

func (d *diffPrinter) line(l schema.SnapshotDiff) error {
	if d.head == nil {
		d.head = &l
		if err := d.begin(); err != nil {
			return err
		}
	}
	for _, r := range l.Ranges {
		if d.json {
			say(d.out, "%s\n    {\"offset\": %d, \"length\": %d}", comma(d.ranges), r.Offset, r.Length)
		} else {
			say(d.out, "%-18d %d\n", r.Offset, r.Length)
		}
		d.ranges++
		d.changed += r.Length
	}
	d.done = l.Done
	d.bar.set("compare", int64(l.Done), int64(l.Size))
	if err := d.out.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

func comma(before int) string {
	if before > 0 {
		return ","
	}
	return ""
}

// begin prints what comes before the ranges.
func (d *diffPrinter) begin() error {
	if !d.json {
		say(d.out, "%-18s %s\n", "OFFSET", "LENGTH")
		return nil
	}
	say(d.out, "{")
	for _, side := range []struct {
		name string
		of   *schema.Snapshot
	}{{"from", d.head.From}, {"to", d.head.To}} {
		if side.of == nil {
			continue
		}
		text, err := json.Marshal(side.of)
		if err != nil {
			return fmt.Errorf("print: %w", err)
		}
		say(d.out, "\n  %q: %s,", side.name, text)
	}
	say(d.out, "\n  \"size_bytes\": %d,\n  \"page_bytes\": %d,\n  \"ranges\": [", d.head.Size, d.head.Page)
	return nil
}

// end prints what comes after the ranges, once all were told.
func (d *diffPrinter) end() error {
	if d.json {
		say(d.out, "\n  ],\n  \"done_bytes\": %d\n}\n", d.done)
	} else {
		say(d.out, "%s of %s in %d ranges changed\n", size(d.changed), size(d.head.Size), d.ranges)
	}
	if err := d.out.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
