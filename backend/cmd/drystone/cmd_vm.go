package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/client"
	"drystone.example/drystone/backend/model"
)

func newVM(a *app) *cobra.Command {
	return group("vm", "Virtual machines",
		newVMCreate(a), newVMEdit(a), newVMHistory(a), newVMList(a), newVMShow(a), newVMStart(a),
		newVMPower(a, schema.PowerStop, "Stop a machine at once, as if unplugged"),
		newVMPower(a, schema.PowerShutdown, "Ask a machine's guest to shut down"),
		newVMPower(a, schema.PowerReset, "Reset a machine"),
		newVMMigrate(a), newVMDelete(a), newVMSnapshot(a), newVMConsole(a), newVMScreen(a),
		newVMExport(a), newVMImport(a))
}

// vmFlags are the flags of vm create.
type vmFlags struct {
	cpus    int
	memory  string
	disks   []string
	volumes []string
	kernel  string
	initrd  string
	append  string
	nics    []string
	tags    []string

	priority    string
	description string

	drives          driveFlags
	firmware, nvram string
}

func newVMCreate(a *app) *cobra.Command {
	var f vmFlags
	c := &cobra.Command{
		Use: "create NAME", Short: "Make a machine", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, err := f.spec(args[0])
			if err != nil {
				return err
			}
			return a.with(cmd, func(c *client.Client) error {
				if spec.Boot, err = f.boot(cmd.Context(), c); err != nil {
					return err
				}
				stop := a.follow(cmd.Context(), c, spec.Name)
				vm, err := c.CreateVM(cmd.Context(), spec)
				stop()
				if err != nil {
					return err
				}
				return show(a, vm, func(w io.Writer, vm schema.VM) { say(w, "machine %s is made\n", vm.Name) })
			})
		},
	}
	c.Flags().IntVar(&f.cpus, "cpus", 1, "processors")
	c.Flags().StringVar(&f.memory, "memory", "512M", "memory")
	c.Flags().StringVar(&f.priority, "priority", string(model.PriorityNormal), priorityHelp)
	c.Flags().StringArrayVar(&f.disks, "disk", nil, diskHelp)
	c.Flags().StringArrayVar(&f.volumes, "volume", nil, "a volume that exists; with ,bus=sata as for --disk (may be repeated)")
	c.Flags().StringArrayVar(&f.nics, "nic", nil, nicHelp)
	c.Flags().StringArrayVar(&f.tags, "tag", nil, tagHelp)
	c.Flags().StringVar(&f.description, "description", "", "what it is for")
	c.Flags().StringVar(&f.firmware, "firmware", string(model.FirmwareBIOS), firmwareHelp)
	c.Flags().StringVar(&f.nvram, "nvram", "", "a volume that is an NVRAM, as a clone of another machine's; a new one unless given")
	c.Flags().StringVar(&f.kernel, "kernel", "", "file with a kernel to start from")
	c.Flags().StringVar(&f.initrd, "initrd", "", "file with its initial RAM disk")
	c.Flags().StringVar(&f.append, "append", "", "its command line")
	f.drives.flags(c, `a CD-ROM drive with this image in it: IMAGE[,bus=sata|scsi]; "" for an empty one (may be repeated)`)
	return c
}

const tagHelp = "a tag; the first groups machines (may be repeated)"

func (f vmFlags) spec(name string) (s schema.VMSpec, err error) {
	s = schema.VMSpec{
		Name: name, CPUs: f.cpus, Priority: model.Priority(f.priority), Disks: []schema.DiskFrom{}, Tags: f.tags, Description: f.description,
		Firmware: model.Firmware(f.firmware), NVRAM: f.nvram,
	}
	if s.Memory, err = parseSize(f.memory); err != nil {
		return s, err
	}
	if s.NICs, err = nicSpecs("nic", f.nics); err != nil {
		return s, err
	}
	if f.kernel == "" && (f.initrd != "" || f.append != "") {
		return s, usagef("--initrd and --append go with --kernel")
	}
	for _, text := range f.disks {
		source, d, err := diskSource("disk", text)
		if err != nil {
			return s, err
		}
		if d.Size, err = parseSize(source); err != nil {
			d.Size, d.Image = 0, source
		}
		s.Disks = append(s.Disks, d)
	}
	for _, text := range f.volumes {
		source, d, err := diskSource("volume", text)
		if err != nil {
			return s, err
		}
		d.Volume = source
		s.Disks = append(s.Disks, d)
	}
	return s, f.drives.create(&s)
}

// boot hands the boot files to the cluster.
func (f vmFlags) boot(ctx context.Context, c *client.Client) (*model.Boot, error) {
	if f.kernel == "" {
		return nil, nil //nolint:nilnil // no kernel is no boot, and no mistake
	}
	b := &model.Boot{Append: f.append}
	var err error
	if b.Kernel, err = putFile(ctx, c, f.kernel); err != nil {
		return nil, err
	}
	if f.initrd != "" {
		b.Initrd, err = putFile(ctx, c, f.initrd)
	}
	return b, err
}

func putFile(ctx context.Context, c *client.Client, path string) (ref model.FileRef, err error) {
	file, err := os.Open(path) //nolint:gosec // the caller names it
	if err != nil {
		return ref, fmt.Errorf("open a boot file: %w", err)
	}
	defer letGo(file)
	sum := sha256.New()
	n, err := io.Copy(sum, file)
	if err != nil {
		return ref, fmt.Errorf("read %s: %w", path, err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return ref, fmt.Errorf("read %s: %w", path, err)
	}
	ref = model.FileRef{Name: filepath.Base(path), SHA256: hex.EncodeToString(sum.Sum(nil)), Size: model.Bytes(n)}
	return c.PutFile(ctx, ref, file)
}

func newVMList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the machines", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(c *client.Client) error {
				vms, err := c.VMs(cmd.Context())
				if err != nil {
					return err
				}
				return list(a, vms, "There are no machines.", "NAME ID STATE NODE CPUS MEMORY DISKS SINCE", func(v schema.VM) []string {
					return []string{
						v.Name, v.ID.String(), dash(string(v.Status.State)), dash(v.NodeName), strconv.Itoa(v.CPUs),
						size(v.Memory), strconv.Itoa(len(v.Disks)), dash(ago(v.Status.Since)),
					}
				})
			})
		},
	}
}

func newVMShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show VM", Short: "Show a machine", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(c *client.Client) error {
				vm, err := c.VM(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return show(a, vm, printVM)
			})
		},
	}
}

func printVM(w io.Writer, v schema.VM) {
	boot := ""
	if v.Boot != nil {
		boot = v.Boot.Kernel.Name
	}
	fields(w,
		"Name", v.Name, "ID", v.ID.String(), "Shall be", string(v.Power), "Is", string(v.Status.State),
		"Because", v.Status.Reason, "Since", ago(v.Status.Since), "Node", v.NodeName, "Moves to", v.MovesTo,
		"Processors", strconv.Itoa(v.CPUs), "Memory", size(v.Memory),
		"Priority", string(v.Priority), "Prefers", wishes(v), "Apart from", strings.Join(v.Apart, ", "),
		"Returns to", v.ReturnsTo, "Disks do at most", limits(v.Limits), "Firmware", firmwareOf(v), "Kernel", boot, "Starts from", startsFrom(v), "Cloud-init", cloudInit(v), "Tags", strings.Join(v.Tags, ", "),
		"Description", strings.ReplaceAll(v.Description, "\n", " "),
	)
	defer printNICs(w, v.NICs)
	defer printDrives(w, v)
	if len(v.Disks) == 0 {
		return
	}
	say(w, "\n")
	say(w, "DISK\tBUS\tVOLUME\tSIZE\tUSED\tSTATE\n")
	for _, d := range v.Disks {
		say(w, "%s\t%s\t%s\t%s\t%s\t%s\n", d.Device, d.Bus, d.Name, size(d.Size), size(d.Used), d.State)
	}
}

func newVMStart(a *app) *cobra.Command {
	var node string
	c := newVMPower(a, schema.PowerStart, "Start a machine")
	c.Flags().StringVar(&node, "node", "", "start it on this node")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		return a.power(cmd, args[0], schema.PowerStart, node)
	}
	return c
}

func newVMPower(a *app, do schema.PowerAction, short string) *cobra.Command {
	return &cobra.Command{
		Use: string(do) + " VM", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.power(cmd, args[0], do, "") },
	}
}

func (a *app) power(cmd *cobra.Command, ref string, do schema.PowerAction, node string) error {
	return a.with(cmd, func(c *client.Client) error {
		vm, err := c.PowerVM(cmd.Context(), ref, do, node)
		if err != nil {
			return err
		}
		return show(a, vm, func(w io.Writer, v schema.VM) {
			say(w, "machine %s shall be %s; it is %s\n", v.Name, v.Power, v.Status.State)
		})
	})
}

func newVMMigrate(a *app) *cobra.Command {
	var limit time.Duration
	c := &cobra.Command{
		Use: "migrate VM [NODE]", Short: "Move a running machine to another node",
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec := schema.MigrateSpec{Seconds: int(limit.Round(time.Second) / time.Second)}
			if limit != 0 && spec.Seconds < 1 {
				return usagef("the time limit is at least a second")
			}
			if len(args) > 1 {
				spec.Node = args[1]
			}
			return a.with(cmd, func(c *client.Client) error {
				t, err := c.MigrateVM(cmd.Context(), args[0], spec)
				if err != nil {
					return err
				}
				stop := a.follow(cmd.Context(), c, t.Object)
				_, err = ended(cmd.Context(), c, t)
				stop()
				if err != nil {
					return err
				}
				vm, err := c.VM(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return show(a, vm, func(w io.Writer, v schema.VM) {
					say(w, "machine %s runs on %s\n", v.Name, v.NodeName)
				})
			})
		},
	}
	c.Flags().DurationVar(&limit, "limit", 0, "give up when copying the memory takes longer (default 10m)")
	return c
}

func newVMDelete(a *app) *cobra.Command {
	var yes, keep bool
	c := &cobra.Command{
		Use: "delete VM", Short: "Delete a machine and its volumes", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(c *client.Client) error {
				vm, err := c.VM(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				what := "delete the machine and its volumes"
				if keep {
					what = "delete the machine"
				}
				if err := a.confirm(yes, what, vm.Name); err != nil {
					return err
				}
				if err := c.DeleteVM(cmd.Context(), vm.ID.String(), keep); err != nil {
					return err
				}
				a.said("machine %s is deleted", vm.Name)
				return nil
			})
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Flags().BoolVar(&keep, "keep-disks", false, "leave its volumes")
	return c
}
