package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/client"
	"drystone.example/drystone/backend/model"
)

func newPool(a *app) *cobra.Command {
	one := &cobra.Command{
		Use: "show", Short: "Show the pool", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(c *client.Client) error {
				p, err := c.Pool(cmd.Context())
				if err != nil {
					return err
				}
				return show(a, p, func(w io.Writer, p schema.Pool) {
					fields(w,
						"Size", size(p.Size), "Used", size(p.Used), "Kept to rebuild", size(p.Reserve),
						"Promised to volumes", size(p.Provisioned),
						"Disks", fmt.Sprintf("%d of %d online", p.DisksOnline, p.DisksTotal),
						"Columns out of sync", strconv.Itoa(p.ColumnsOutOfSync), "Moving", moving(p.Moves),
					)
				})
			})
		},
	}
	return group("pool", "All disks of all nodes taken together", one)
}

func newDisk(a *app) *cobra.Command {
	all := &cobra.Command{
		Use: "list", Short: "List the disks", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(c *client.Client) error {
				disks, err := c.Disks(cmd.Context())
				if err != nil {
					return err
				}
				return list(a, disks, "There are no disks.", "ID NODE STATE SIZE USED CHECKSUM-ERRORS REPAIRED DAMAGED SCRUBBED HEALTH PATH", diskRow)
			})
		},
	}
	var node, fileSize string
	var sparse, wipe bool
	add := &cobra.Command{
		Use: "add PATH", Short: "Make a file or block device of a node part of the pool", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec := schema.DiskSpec{Sparse: sparse, Wipe: wipe}
			var err error
			if spec.Path, err = filepath.Abs(args[0]); err != nil {
				return fmt.Errorf("make the path absolute: %w", err)
			}
			if fileSize != "" {
				if spec.Size, err = parseSize(fileSize); err != nil {
					return err
				}
			}
			return a.with(cmd, func(c *client.Client) error {
				if node == "" {
					meta, err := c.Meta(cmd.Context())
					if err != nil {
						return err
					}
					node = meta.NodeID.String()
				}
				d, err := c.AddDisk(cmd.Context(), node, spec)
				if err != nil {
					return err
				}
				return show(a, d, func(w io.Writer, d schema.Disk) {
					say(w, "disk %s of %s is part of the pool\n", d.ID, size(d.Size))
				})
			})
		},
	}
	add.Flags().StringVar(&node, "node", "", "node that has it (default: the one that answers)")
	add.Flags().StringVar(&fileSize, "size", "", "make a file of this size first")
	add.Flags().BoolVar(&sparse, "sparse", false, "do not reserve the space of that file: for trials")
	add.Flags().BoolVar(&wipe, "wipe", false, "take a block device although it holds data, which is lost")
	return group("disk", "Disks of the pool", all, newDiskShow(a), add, newDiskRemove(a), newDiskScrub(a))
}

func newDiskScrub(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "scrub DISK", Short: "Verify all data of a disk now, and repair what is damaged",
		Long: `Verify all data of a disk now, and repair what is damaged from other copies.

Every disk is verified once a week by itself. This begins a pass now, or goes on with one
that was interrupted, and waits for its end. An interrupt cancels it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := model.ParseID[model.DiskID](args[0])
			if err != nil {
				return err
			}
			return a.with(cmd, func(c *client.Client) error {
				t, err := c.ScrubDisk(cmd.Context(), id)
				if err != nil {
					return err
				}
				return a.await(cmd.Context(), c, t, "all data of disk %s is verified\n")
			})
		},
	}
}

// await shows a task until it is done, and then says so.
func (a *app) await(ctx context.Context, c *client.Client, t schema.Task, done string) error {
	stop := a.follow(ctx, c, t.Object)
	t, err := ended(ctx, c, t)
	stop()
	if err != nil {
		return err
	}
	return show(a, t, func(w io.Writer, t schema.Task) { say(w, done, t.Object) })
}

// taskPoll is how often a task is looked at that somebody waits for, and taskPatience
// for how long nothing may be heard of it.
const (
	taskPoll     = 500 * time.Millisecond
	taskPatience = time.Minute
)

// A tasker tells of tasks. A client is one.
type tasker interface {
	Tasks(ctx context.Context) (schema.List[schema.Task], error)
	CancelTask(ctx context.Context, id model.TaskID) error
}

// ended waits until a task is done, and returns it as it is then. When ctx ends
// first the task is cancelled. A task that its node does not know any more, because
// that was started again, has ended too, with an error.
func ended(ctx context.Context, c tasker, t schema.Task) (schema.Task, error) {
	heard := time.Now()
	for {
		tasks, err := c.Tasks(ctx)
		if ctx.Err() != nil {
			ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer stop()
			if err := c.CancelTask(ctx, t.ID); err != nil {
				return t, fmt.Errorf("cancel task %s: %w", t.ID, err)
			}
			return t, model.Errorf(model.Unavailable, "it was cancelled")
		}
		i := slices.IndexFunc(tasks.Items, func(o schema.Task) bool { return o.ID == t.ID })
		switch {
		case err == nil && i >= 0 && tasks.Items[i].State != schema.TaskRunning:
			return tasks.Items[i], failure(tasks.Items[i])
		case err == nil && i >= 0:
			heard = time.Now()
		case time.Since(heard) < taskPatience:
		case err != nil:
			return t, fmt.Errorf("wait for task %s: %w", t.ID, err)
		default:
			return t, model.Errorf(model.Unavailable, "no node knows task %s any more: the one that did it was started again", t.ID)
		}
		select {
		case <-time.After(taskPoll):
		case <-ctx.Done():
		}
	}
}

// failure is the error of a task that did not do what it should, or nil.
func failure(t schema.Task) error {
	if t.State == schema.TaskDone {
		return nil
	}
	return model.Errorf(model.Unavailable, "%s", cmp.Or(t.Error, "the task was "+string(t.State)))
}

func diskRow(d schema.Disk) []string {
	path := d.Path
	if d.Error != "" {
		path += " (" + d.Error + ")"
	}
	if d.Drain != nil {
		path += " (leaves the pool: " + drained(*d.Drain) + ")"
	}
	return []string{
		d.ID.String(), d.NodeName, string(d.State), size(d.Size), size(d.Used),
		strconv.FormatUint(d.ChecksumErrors, 10), strconv.FormatUint(d.Repaired, 10),
		strconv.Itoa(d.Damaged), scrubbed(d), health(d), path,
	}
}

// scrubbed says when a disk was verified last, or how far that is.
func scrubbed(d schema.Disk) string {
	switch {
	case d.Scrub != nil && d.Scrub.Running:
		return fmt.Sprintf("%d%%", 100*d.Scrub.Done/max(d.Scrub.Total, 1))
	case d.LastScrub.IsZero():
		return "never"
	}
	return d.LastScrub.Local().Format(time.DateOnly)
}

func newVolume(a *app) *cobra.Command {
	return group("volume", "Virtual disks",
		newVolumeCreate(a), newVolumeClone(a), newVolumeList(a), newVolumeShow(a), newVolumeResize(a), newVolumeScrub(a), newVolumeDelete(a), newVolumeExport(a))
}

func newVolumeCreate(a *app) *cobra.Command {
	spec := schema.VolumeSpec{}
	c := &cobra.Command{
		Use: "create NAME SIZE", Short: "Make a volume", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			spec.Name = args[0]
			if spec.Size, err = parseSize(args[1]); err != nil {
				return err
			}
			return a.with(cmd, func(c *client.Client) error {
				v, err := c.CreateVolume(cmd.Context(), spec)
				if err != nil {
					return err
				}
				return show(a, v, func(w io.Writer, v schema.Volume) {
					say(w, "volume %s of %s with %d copies is made\n", v.Name, size(v.Size), v.Copies)
				})
			})
		},
	}
	c.Flags().IntVar(&spec.Copies, "copies", 2, "how many disks have each piece, 2 or 3")
	c.Flags().BoolVar(&spec.Force, "force", false, "also if the pool is so full that new volumes are refused")
	return c
}

func newVolumeClone(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "clone VOLUME[@SNAPSHOT] NAME", Short: "Make a volume that begins as another one, without copying it",
		Long: `Make a volume that begins as another one is now, or was when a snapshot of it was cut.

It is there at once, however much is on it, and takes space only for what differs. It does
not depend on the volume or the snapshot: either can be deleted.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			of, at, _ := strings.Cut(args[0], "@")
			return a.with(cmd, func(c *client.Client) error {
				v, err := c.CloneVolume(cmd.Context(), of, schema.CloneSpec{Name: args[1], Snapshot: at})
				if err != nil {
					return err
				}
				return show(a, v, func(w io.Writer, v schema.Volume) {
					say(w, "volume %s of %s is a clone of %s\n", v.Name, size(v.Size), args[0])
				})
			})
		},
	}
}

func newVolumeList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the volumes", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(c *client.Client) error {
				volumes, err := c.Volumes(cmd.Context())
				if err != nil {
					return err
				}
				return list(a, volumes, "There are no volumes.", volumeHeader, volumeRow)
			})
		},
	}
}

const volumeHeader = "NAME ID KIND SIZE USED COPIES STATE HELD-BY"

func volumeRow(v schema.Volume) []string {
	return []string{
		v.Name, v.ID.String(), string(v.Kind), size(v.Size), size(v.Used), strconv.Itoa(v.Copies),
		string(v.State), dash(v.HolderName),
	}
}

func newVolumeShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show VOLUME", Short: "Show a volume and where its columns lie", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(c *client.Client) error {
				v, err := c.Volume(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				names := map[model.NodeID]string{}
				if !a.json {
					nodes, err := c.Nodes(cmd.Context())
					if err != nil {
						return err
					}
					names = namesOf(nodes)
				}
				return show(a, v, func(w io.Writer, v schema.Volume) { printVolume(w, v, names) })
			})
		},
	}
}

func printVolume(w io.Writer, v schema.Volume, names map[model.NodeID]string) {
	held := "nobody"
	if v.Holder != 0 {
		held = fmt.Sprintf("%s for %s", v.HolderName, v.Purpose)
	}
	of := ""
	if v.CloneOf != 0 {
		of = v.CloneOf.String() + ", for a moment still"
	}
	fill := ""
	if v.Fill != nil {
		fill = fmt.Sprintf("%s of %s", size(v.Fill.Done), size(v.Fill.Total))
	}
	fields(w,
		"Name", v.Name, "ID", v.ID.String(), "Kind", string(v.Kind), "Size", size(v.Size), "Used", size(v.Used),
		"State", string(v.State), "Waits because", v.Waits, "Lost data", lostRanges(v.Lost), "Held by", held, "Filled", fill, "Needs", of,
		"Copies compared", comparedAt(v.Scrub), tendingLabel(v.Tending), tendingText(v.Tending),
		"Generation", strconv.FormatUint(uint64(v.Generation), 10),
		"Columns", fmt.Sprintf("%d with %d copies each, %d out of sync", v.ColumnsTotal, v.Copies, v.ColumnsOutOfSync),
	)
	say(w, "\n")
	say(w, "COLUMN\tMEMBERS\n")
	for i, column := range v.Columns {
		say(w, "%d", i)
		for _, m := range column.Members {
			say(w, "\t%s on %s %s", m.Disk, nameOf(names, m.Node, "no node"), m.State)
		}
		say(w, "\n")
	}
}

// lostRanges names what a volume has lost.
func lostRanges(l *schema.Lost) string {
	if l == nil {
		return ""
	}
	const named = 8
	var each []string
	for _, r := range l.Ranges[:min(named, len(l.Ranges))] {
		one := fmt.Sprintf("%s at %d", size(r.Length), r.Offset)
		if r.Snapshot {
			one += " of snapshots"
		}
		each = append(each, one)
	}
	if l.Count > named {
		each = append(each, fmt.Sprintf("and %d more", l.Count-named))
	}
	return strings.Join(each, ", ")
}

func newVolumeResize(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "resize VOLUME SIZE", Short: "Grow a volume", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			to, err := parseSize(args[1])
			if err != nil {
				return err
			}
			return a.with(cmd, func(c *client.Client) error {
				v, err := c.ResizeVolume(cmd.Context(), args[0], to)
				if err != nil {
					return err
				}
				return show(a, v, func(w io.Writer, v schema.Volume) {
					say(w, "volume %s has %s\n", v.Name, size(v.Size))
				})
			})
		},
	}
}

func newVolumeScrub(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "scrub VOLUME", Short: "Compare the copies of a volume now",
		Long: `Compare the copies of a volume now, by what the disks know of them; data is not read.

That is done once a day by itself. This begins it now and waits for its end; an interrupt
cancels it. Copies that differ are an error, also where they could be made equal.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(c *client.Client) error {
				t, err := c.ScrubVolume(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.await(cmd.Context(), c, t, "all copies of volume %s are equal\n")
			})
		},
	}
}

// comparedAt says when the copies of a volume were compared, and what came of it.
func comparedAt(s *schema.VolumeScrub) string {
	if s == nil {
		return "never"
	}
	out := s.Ended.Local().Format(time.DateTime)
	switch {
	case s.Diverged > 0:
		return fmt.Sprintf("%s: %d pages DIVERGED, nobody can say which copy is right", out, s.Diverged)
	case s.Different > 0:
		return fmt.Sprintf("%s: %d pages differed and were made equal", out, s.Different)
	case s.Skipped > 0:
		return fmt.Sprintf("%s: equal, but of %s there was one copy in reach", out, size(s.Skipped))
	}
	return out + ": equal"
}

func newVolumeDelete(a *app) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "delete VOLUME", Short: "Delete a volume, everything on it and its snapshots", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(c *client.Client) error {
				v, err := c.Volume(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if err := a.confirm(yes, "delete the volume, everything on it and its snapshots", v.Name); err != nil {
					return err
				}
				if err := c.DeleteVolume(cmd.Context(), v.ID.String()); err != nil {
					return err
				}
				a.said("volume %s is deleted", v.Name)
				return nil
			})
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

func newVolumeExport(a *app) *cobra.Command {
	var node, nbd, vhost string
	c := &cobra.Command{
		Use:   "export VOLUME (--nbd SOCKET | --vhost SOCKET)",
		Short: "Serve a volume to a program on a node until interrupted",
		Long: "Serves a volume from a node at a UNIX socket, prints one line \"ready URI\" when programs can connect,\n" +
			"and goes on until it is interrupted; then the volume is let go cleanly.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec := schema.ExportSpec{Kind: schema.ExportNBD, Path: nbd}
			if vhost != "" {
				spec = schema.ExportSpec{Kind: schema.ExportVhost, Path: vhost}
			}
			if (nbd == "") == (vhost == "") {
				return usagef("one of --nbd and --vhost is needed, with the path of a socket")
			}
			var err error
			if spec.Path, err = filepath.Abs(spec.Path); err != nil {
				return fmt.Errorf("make the path absolute: %w", err)
			}
			return a.on(cmd, node, func(c *client.Client) error {
				return c.Export(cmd.Context(), args[0], spec, func(uri string) { say(a.out, "ready %s\n", uri) })
			})
		},
	}
	c.Flags().StringVar(&node, "node", "", "serve it from this node")
	c.Flags().StringVar(&nbd, "nbd", "", "serve NBD at this socket")
	c.Flags().StringVar(&vhost, "vhost", "", "serve vhost-user-blk at this socket")
	return c
}

// on does something with a node that is named, or with whichever answers.
func (a *app) on(cmd *cobra.Command, node string, do func(c *client.Client) error) error {
	if node == "" {
		return a.with(cmd, do)
	}
	c, err := a.target.node(node)
	if err != nil {
		return err
	}
	defer c.Close()
	return do(c)
}
