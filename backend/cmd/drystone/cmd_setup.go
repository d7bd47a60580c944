package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/node"
	"drystone.example/drystone/backend/virt"
)

// localFlags are what init and join ask about the machine they run on.
func localFlags(c *cobra.Command, l *node.Local) {
	name, err := os.Hostname()
	if err != nil {
		name = "node1"
	}
	f := c.Flags()
	f.StringVar((*string)(&l.Dir), "node-dir", string(node.DefaultDir), "folder of everything the node keeps")
	f.StringVar(&l.Name, "name", name, "name of this node")
	f.StringVar(&l.Address, "address", "", "IP address that the other nodes reach this one at")
	f.StringVar((*string)(&l.Accelerator), "accel", string(virt.Auto), "what runs the guests: auto, kvm or tcg")
	f.StringVar(&l.LibvirtURI, "libvirt", virt.SystemURI, "libvirtd of this machine; empty for a node without guests")
	f.StringVar(&l.LibvirtPIDs, "libvirt-pids", "/run/libvirt/qemu", "libvirtd's folder of pid files")
	_ = c.MarkFlagRequired("address") // the flag is there
}

// newInit makes this machine the first node of a new cluster.
func newInit(a *app) *cobra.Command {
	var b node.Birth
	var passwordFile string
	c := &cobra.Command{
		Use:   "init",
		Short: "Make this machine the first node of a new cluster",
		Long: "Makes this machine the first node of a new cluster: its identity, its certificate authority and its owner.\n" +
			"The password is read from a file, or asked for; without a terminal one is drawn and shown once.\n" +
			"Start the daemon afterwards: drystoned run.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			password, drawn, err := a.newPassword(passwordFile)
			if err != nil {
				return err
			}
			b.Password = password
			born, err := node.Init(c.Context(), b)
			if err != nil {
				return err
			}
			out := initResult{born.Cluster, born.Node, born.Fingerprint, born.CA, b.User, ""}
			if drawn {
				out.Password = b.Password.Reveal()
			}
			return show(a, out, printInit)
		},
	}
	localFlags(c, &b.Local)
	c.Flags().StringVar(&b.ClusterName, "cluster-name", "drystone", "name of the cluster")
	c.Flags().StringVar(&b.User, "user", "admin", "name of its owner")
	c.Flags().StringVar(&passwordFile, "password-file", "", "file with the owner's password")
	return c
}

// An initResult is what init prints.
type initResult struct {
	Cluster     model.ClusterID `json:"cluster_id"`
	Node        model.NodeID    `json:"node_id"`
	Fingerprint string          `json:"fingerprint"`
	CA          string          `json:"ca"`
	User        string          `json:"user"`
	Password    string          `json:"password,omitempty"` // if it was drawn
}

func printInit(w io.Writer, r initResult) {
	pairs := []string{
		"Cluster", r.Cluster.String(), "Node", r.Node.String(),
		"Fingerprint", r.Fingerprint, "Certificate", r.CA, "Owner", r.User,
	}
	if r.Password != "" {
		pairs = append(pairs, "Password", r.Password+"   (shown this once)")
	}
	fields(w, pairs...)
	say(w, "\nStart the daemon: drystoned run. Others join with a token: drystone token create.\n")
}

// newPassword reads the password of a new owner; drawn says that it was made up.
func (a *app) newPassword(file string) (password model.Secret, drawn bool, err error) {
	switch {
	case file != "":
		text, err := os.ReadFile(file) //nolint:gosec // the caller names it
		if err != nil {
			return password, false, fmt.Errorf("read the password: %w", err)
		}
		return model.NewSecret(string(bytes.TrimRight(text, "\r\n"))), false, nil
	case !isTerminal(a.in):
		return model.NewSecret(rand.Text()), true, nil
	}
	first, err := a.readPassword("Password of the owner: ")
	if err != nil {
		return password, false, err
	}
	second, err := a.readPassword("Once more: ")
	if err != nil {
		return password, false, err
	}
	if first != second {
		return password, false, model.Errorf(model.Invalid, "the two passwords are not the same")
	}
	return model.NewSecret(first), false, nil
}

// newJoin makes this machine a node of a cluster that is there.
func newJoin(a *app) *cobra.Command {
	var l node.Local
	c := &cobra.Command{
		Use:   "join ADDRESS TOKEN",
		Short: "Make this machine a node of the cluster that gave out the token",
		Long: "Makes this machine a node of the cluster that gave out the token (drystone token create). ADDRESS is that of any\n" +
			"of its nodes; the token says which cluster it must prove to be. Start the daemon afterwards: drystoned run.",
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := node.Join(c.Context(), l, args[0], model.NewSecret(args[1]))
			if err != nil {
				return err
			}
			return show(a, joinResult{cfg.Cluster, cfg.ClusterName, cfg.Node}, func(w io.Writer, r joinResult) {
				fields(w, "Cluster", r.Name+" ("+r.Cluster.String()+")", "Node", r.Node.String())
				say(w, "\nStart the daemon: drystoned run.\n")
			})
		},
	}
	localFlags(c, &l)
	return c
}

// A joinResult is what join prints.
type joinResult struct {
	Cluster model.ClusterID `json:"cluster_id"`
	Name    string          `json:"cluster_name"`
	Node    model.NodeID    `json:"node_id"`
}
