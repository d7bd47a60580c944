package main

import (
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/client"
	"drystone.example/drystone/backend/model"
)

const priorityHelp = "low, normal or high: whose turn it is when a node is lost and the others have not room for all"

// editFlags are the flags of vm edit.
type editFlags struct {
	name, memory, priority, prefer, backup string

	cpus   int
	strict bool
	apart  []string

	description                        string
	tags, addNICs, setNICs, removeNICs []string

	addDisks, removeDisks []string

	iops, mbps, burst int64

	drives   driveFlags
	firmware string
}

func newVMEdit(a *app) *cobra.Command {
	var f editFlags
	c := &cobra.Command{
		Use: "edit VM", Short: "Change a machine; its name, processors, memory and firmware only while it is off",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			change, err := f.change(cmd.Flags().Changed)
			if err != nil {
				return err
			}
			return a.with(cmd, func(c *client.Client) error {
				if err := f.drives.edit(cmd.Context(), c, args[0], cmd.Flags().Changed, &change); err != nil {
					return err
				}
				vm, err := c.ChangeVM(cmd.Context(), args[0], change)
				if err != nil {
					return err
				}
				return show(a, vm, func(w io.Writer, vm schema.VM) {
					printVM(w, vm)
					for _, name := range f.removeDisks {
						say(w, "the volume %s is no disk of %s any more; it stays until you delete it (drystone volume delete %s)\n", name, vm.Name, name)
					}
				})
			})
		},
	}
	c.Flags().StringVar(&f.name, "name", "", "its name")
	c.Flags().IntVar(&f.cpus, "cpus", 0, "processors")
	c.Flags().StringVar(&f.memory, "memory", "", "memory")
	c.Flags().StringVar(&f.priority, "priority", "", priorityHelp)
	c.Flags().StringVar(&f.prefer, "prefer", "", `the node it rather runs on; "" for none`)
	c.Flags().StringVar(&f.backup, "backup", "", `the node for where that one cannot be; "" for none`)
	c.Flags().BoolVar(&f.strict, "strict", false, "it runs on these two nodes only; --strict=false ends that")
	c.Flags().StringSliceVar(&f.apart, "apart", nil,
		`groups of machines of which no two run on one node while another can take one, with commas; "" for none`)
	c.Flags().StringArrayVar(&f.tags, "tag", nil, `a tag; those given replace those it has (may be repeated); "" for none`)
	c.Flags().StringVar(&f.description, "description", "", "what it is for")
	c.Flags().StringArrayVar(&f.addNICs, "add-nic", nil, nicHelp)
	c.Flags().StringArrayVar(&f.removeNICs, "remove-nic", nil, "take out the network card of this address (may be repeated)")
	c.Flags().StringArrayVar(&f.setNICs, "set-nic", nil,
		"change a network card: mac=MAC[,net=NAME][,model=MODEL][,connected|disconnected] (may be repeated)")
	c.Flags().StringArrayVar(&f.addDisks, "add-disk", nil, "add a disk: a size for a new volume, or the name of one that exists (may be repeated)")
	c.Flags().StringArrayVar(&f.removeDisks, "remove-disk", nil,
		"take out the disk of this volume, which stays (may be repeated); a running machine's guest gives it back first")
	c.Flags().StringVar(&f.firmware, "firmware", "", firmwareHelp+"; what the one before remembered is forgotten")
	c.Flags().Int64Var(&f.iops, "iops", 0, "requests a second that each of its disks makes at most; 0 for no limit")
	c.Flags().Int64Var(&f.mbps, "mbps", 0, "MiB a second that each of its disks reads and writes at most; 0 for no limit")
	c.Flags().Int64Var(&f.burst, "burst-seconds", 0, "so many seconds' worth that a disk left unused it may make up for at once")
	f.drives.editFlags(c)
	return c
}

// change is what the flags that are given change.
func (f *editFlags) change(given func(flag string) bool) (c schema.VMChange, err error) {
	set(&c.Name, &f.name, given("name"))
	set(&c.CPUs, &f.cpus, given("cpus"))
	set(&c.Priority, (*model.Priority)(&f.priority), given("priority"))
	set(&c.Prefer, &f.prefer, given("prefer"))
	set(&c.Backup, &f.backup, given("backup"))
	set(&c.Strict, &f.strict, given("strict"))
	if f.apart == nil {
		f.apart = []string{}
	}
	set(&c.Apart, &f.apart, given("apart"))
	f.tags = slices.DeleteFunc(f.tags, func(t string) bool { return t == "" })
	set(&c.Tags, &f.tags, given("tag"))
	set(&c.Description, &f.description, given("description"))
	c.RemoveNICs = f.removeNICs
	if c.AddNICs, err = nicSpecs("add-nic", f.addNICs); err != nil {
		return c, err
	}
	if c.SetNICs, err = nicChanges(f.setNICs); err != nil {
		return c, err
	}
	c.AddDisks, c.RemoveDisks = diskSpecs(f.addDisks), f.removeDisks
	set(&c.Firmware, (*model.Firmware)(&f.firmware), given("firmware"))
	set(&c.IOPS, &f.iops, given("iops"))
	set(&c.IOBurst, &f.burst, given("burst-seconds"))
	if given("mbps") {
		if f.mbps < 0 || f.mbps > int64(model.MaxIOBytes>>20) {
			return c, usagef("a limit is 0 to %d MiB a second, not %d", model.MaxIOBytes>>20, f.mbps)
		}
		b := model.Bytes(f.mbps) << 20
		c.IOBytes = &b
	}
	if given("memory") {
		b, err := parseSize(f.memory)
		if err != nil {
			return c, err
		}
		c.Memory = &b
	}
	if c.Empty() && !f.drives.given(given) {
		return c, usagef("nothing to change is given")
	}
	return c, nil
}

// diskSpecs reads --add-disk.
func diskSpecs(texts []string) (list []schema.DiskFrom) {
	for _, text := range texts {
		if b, err := parseSize(text); err == nil {
			list = append(list, schema.DiskFrom{Size: b})
		} else {
			list = append(list, schema.DiskFrom{Volume: text})
		}
	}
	return list
}

func set[T any](field **T, value *T, given bool) {
	if given {
		*field = value
	}
}

// limits says what each disk of a machine may do at most.
func limits(l schema.IOLimits) string {
	var each []string
	if l.IOPS > 0 {
		each = append(each, strconv.FormatInt(l.IOPS, 10)+" requests/s")
	}
	if l.Bytes > 0 {
		each = append(each, size(l.Bytes)+"/s")
	}
	if len(each) > 0 && l.Burst > 0 {
		each = append(each, "bursts of "+strconv.FormatInt(l.Burst, 10)+" s")
	}
	return strings.Join(each, ", ")
}

// wishes says on which nodes a machine rather runs.
func wishes(v schema.VM) string {
	var each []string
	for _, name := range []string{v.Prefer, v.Backup} {
		if name != "" {
			each = append(each, name)
		}
	}
	text := strings.Join(each, ", then ")
	if v.Strict {
		text += ", no other"
	}
	return text
}
