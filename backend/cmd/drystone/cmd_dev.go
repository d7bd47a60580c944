package main

import (
	"io"
	"os"

	"github.com/spf13/cobra"

	"drystone.example/drystone/backend/dev"
	"drystone.example/drystone/backend/model"
)

// newDev runs clusters for development on this machine.
func newDev(a *app) *cobra.Command {
	return group("dev", "Run a whole cluster on this machine, for development and tests",
		newDevUp(a), newDevDown(a), newDevNode(a, "kill", "Kill a node's daemon as a power failure would"),
		newDevNode(a, "start", "Start a node's daemon that is stopped"))
}

// devDir is the folder of the cluster, by flag or environment.
func (a *app) devDir() (string, error) {
	switch {
	case os.Geteuid() != 0:
		return "", model.Errorf(model.Denied, "a development cluster needs root")
	case a.target.dir == "":
		return "", usagef("a development cluster needs a folder: --dir or DRYSTONE_DIR")
	}
	return a.target.dir, nil
}

func newDevUp(a *app) *cobra.Command {
	o := dev.Default()
	size := "8G"
	c := &cobra.Command{
		Use:   "up",
		Short: "Start a cluster of real daemons on loopback addresses",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if o.Dir, err = a.devDir(); err != nil {
				return err
			}
			if o.DiskSize, err = parseSize(size); err != nil {
				return err
			}
			o.Say = a.said
			cluster, err := dev.Up(c.Context(), o)
			if err != nil {
				return err
			}
			return show(a, *cluster, printDev)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Name, "name", o.Name, "name of the cluster")
	f.IntVar(&o.Nodes, "nodes", o.Nodes, "how many nodes")
	f.IntVar(&o.Disks, "disks", o.Disks, "how many disks each")
	f.StringVar(&size, "disk-size", size, "size of each disk")
	f.BoolVar(&o.Reserve, "reserve", false, "reserve the disks' space")
	f.StringVar(&o.Base, "base", o.Base, "first three bytes of the nodes' loopback addresses")
	f.StringVar((*string)(&o.Accelerator), "accel", string(o.Accelerator), "what runs the guests: auto, kvm or tcg")
	f.BoolVar(&o.StorageOnly, "storage-only", false, "without guests, though libvirt be installed")
	return c
}

func printDev(w io.Writer, c dev.Cluster) {
	fields(w, "Web page", c.API, "User", c.User, "Password", c.Password, "Certificate", c.CA)
	for _, n := range c.Nodes {
		say(w, "  %s  %s  process %d, %d disks\n", n.Name, n.Address, n.PID, len(n.Disks))
	}
}

func newDevDown(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Stop everything of the cluster and remove its folder",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := a.devDir()
			if err != nil {
				return err
			}
			if err := dev.Down(c.Context(), dir); err != nil {
				return err
			}
			a.said("stopped and removed %s", dir)
			return nil
		},
	}
}

// newDevNode is dev kill and dev start.
func newDevNode(a *app, verb, short string) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " NODE",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			dir, err := a.devDir()
			if err != nil {
				return err
			}
			cluster, err := dev.Load(dir)
			if err != nil {
				return err
			}
			if verb == "kill" {
				return cluster.Kill(c.Context(), args[0])
			}
			return cluster.Start(c.Context(), args[0])
		},
	}
}
