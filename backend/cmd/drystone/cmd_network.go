package main

import (
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/client"
	"drystone.example/drystone/backend/model"
)

func newNetwork(a *app) *cobra.Command {
	return group("network", "Networks that network cards of machines are joined to",
		newNetworkCreate(a), newNetworkEdit(a), newNetworkList(a), newNetworkShow(a), newNetworkDelete(a))
}

// networkFlags are the flags of network create and edit.
type networkFlags struct {
	bridge string
	nodes  []string
	vlan   int
}

func (f *networkFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.bridge, "bridge", "", "the bridge of each node it is mapped to")
	c.Flags().StringArrayVar(&f.nodes, "node", nil, "NODE=BRIDGE: a node where the bridge is called otherwise (may be repeated)")
	c.Flags().IntVar(&f.vlan, "vlan", 0, "the tag of its frames on the bridge, 1 to 4094; 0: none (a tag on a Linux bridge needs libvirt 11)")
}

func (f *networkFlags) bridges() ([]schema.BridgeFor, error) {
	list := make([]schema.BridgeFor, 0, len(f.nodes))
	for _, text := range f.nodes {
		node, bridge, found := strings.Cut(text, "=")
		if !found || node == "" || bridge == "" {
			return nil, usagef("--node is NODE=BRIDGE, not %q", text)
		}
		list = append(list, schema.BridgeFor{Node: node, Bridge: bridge})
	}
	return list, nil
}

func newNetworkCreate(a *app) *cobra.Command {
	var f networkFlags
	var user bool
	c := &cobra.Command{
		Use: "create NAME", Short: "Make a network", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec := schema.NetworkSpec{Name: args[0], Kind: model.NetworkBridge, Bridge: f.bridge, VLAN: f.vlan}
			if user {
				spec.Kind = model.NetworkUser
			}
			var err error
			if spec.Nodes, err = f.bridges(); err != nil {
				return err
			}
			return a.with(cmd, func(c *client.Client) error {
				n, err := c.CreateNetwork(cmd.Context(), spec)
				if err != nil {
					return err
				}
				return show(a, n, func(w io.Writer, n schema.Network) { say(w, "network %s is made\n", n.Name) })
			})
		},
	}
	f.add(c)
	c.Flags().BoolVar(&user, "user", false, "a user-mode network: each guest alone, behind its node's own address")
	return c
}

func newNetworkEdit(a *app) *cobra.Command {
	var f networkFlags
	var name string
	c := &cobra.Command{
		Use: "edit NETWORK", Short: "Change a network; the network cards on it follow at once", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var change schema.NetworkChange
			given := cmd.Flags().Changed
			if given("name") {
				change.Name = &name
			}
			if given("bridge") {
				change.Bridge = &f.bridge
			}
			if given("vlan") {
				change.VLAN = &f.vlan
			}
			if given("node") {
				nodes, err := f.bridges()
				if err != nil {
					return err
				}
				change.Nodes = &nodes
			}
			if change == (schema.NetworkChange{}) {
				return usagef("nothing to change is given")
			}
			return a.with(cmd, func(c *client.Client) error {
				n, err := c.ChangeNetwork(cmd.Context(), args[0], change)
				if err != nil {
					return err
				}
				return show(a, n, printNetwork)
			})
		},
	}
	c.Flags().StringVar(&name, "name", "", "its name")
	f.add(c)
	return c
}

func newNetworkList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the networks", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(c *client.Client) error {
				networks, err := c.Networks(cmd.Context())
				if err != nil {
					return err
				}
				return list(a, networks, "There are no networks.", "NAME ID KIND BRIDGE VLAN CARDS", func(n schema.Network) []string {
					return []string{
						n.Name, n.ID.String(), string(n.Kind), dash(n.Bridge), dash(vlan(n)), strconv.Itoa(n.Cards),
					}
				})
			})
		},
	}
}

func newNetworkShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show NETWORK", Short: "Show a network", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(c *client.Client) error {
				n, err := c.Network(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return show(a, n, printNetwork)
			})
		},
	}
}

func vlan(n schema.Network) string {
	if n.VLAN == 0 {
		return ""
	}
	return strconv.Itoa(n.VLAN)
}

func printNetwork(w io.Writer, n schema.Network) {
	fields(w,
		"Name", n.Name, "ID", n.ID.String(), "Kind", string(n.Kind), "Bridge", n.Bridge, "VLAN", vlan(n),
		"Cards", strconv.Itoa(n.Cards), "Created", ago(n.Created),
	)
	if len(n.Nodes) == 0 {
		return
	}
	say(w, "\n")
	say(w, "NODE\tBRIDGE\n")
	for _, b := range n.Nodes {
		say(w, "%s\t%s\n", b.NodeName, b.Bridge)
	}
}

func newNetworkDelete(a *app) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "delete NETWORK", Short: "Delete a network that no network card is joined to", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(c *client.Client) error {
				n, err := c.Network(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if err := a.confirm(yes, "delete the network", n.Name); err != nil {
					return err
				}
				if err := c.DeleteNetwork(cmd.Context(), n.ID.String()); err != nil {
					return err
				}
				a.said("network %s is deleted", n.Name)
				return nil
			})
		},
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return c
}

// nicWords reads KEY=VALUE,... of a flag about a network card into what asks for it;
// a word alone has no value.
func nicWords(flag, text string, into map[string]*string) error {
	for word := range strings.SplitSeq(text, ",") {
		key, value, valued := strings.Cut(word, "=")
		to, known := into[key]
		_, bare := map[string]bool{"connected": true, "disconnected": true}[key]
		switch {
		case !known:
			return usagef("--%s does not know %q", flag, key)
		case *to != "":
			return usagef("--%s has %s twice", flag, key)
		case bare == valued || valued && value == "":
			return usagef("--%s: %q is not as it should be", flag, word)
		case bare:
			value = "yes"
		}
		*to = value
	}
	return nil
}

const nicHelp = "a network card: net=NAME[,model=virtio|e1000|rtl8139][,mac=MAC][,disconnected] (may be repeated)"

// nicSpecs reads --nic and --add-nic.
func nicSpecs(flag string, texts []string) (list []schema.NICSpec, err error) {
	for _, text := range texts {
		var net, mac, kind, cut string
		err := nicWords(flag, text, map[string]*string{"net": &net, "mac": &mac, "model": &kind, "disconnected": &cut})
		if err != nil {
			return nil, err
		}
		if net == "" {
			return nil, usagef("--%s needs net=NAME", flag)
		}
		list = append(list, schema.NICSpec{Network: net, Model: model.NICModel(kind), MAC: mac, Disconnected: cut != ""})
	}
	return list, nil
}

// nicChanges reads --set-nic.
func nicChanges(texts []string) (list []schema.NICChange, err error) {
	for _, text := range texts {
		var net, mac, kind, in, out string
		err := nicWords("set-nic", text, map[string]*string{
			"net": &net, "mac": &mac, "model": &kind, "connected": &in, "disconnected": &out,
		})
		if err != nil {
			return nil, err
		}
		if mac == "" || in != "" && out != "" {
			return nil, usagef("--set-nic needs mac=MAC, and at most one of connected and disconnected")
		}
		c := schema.NICChange{MAC: mac}
		if net != "" {
			c.Network = &net
		}
		if kind != "" {
			c.Model = (*model.NICModel)(&kind)
		}
		if connected := in != ""; connected || out != "" {
			c.Connected = &connected
		}
		list = append(list, c)
	}
	return list, nil
}

func printNICs(w io.Writer, nics []schema.NIC) {
	if len(nics) == 0 {
		return
	}
	say(w, "\n")
	say(w, "NIC\tNETWORK\tMODEL\tCONNECTED\n")
	for _, n := range nics {
		connected := "yes"
		if !n.Connected {
			connected = "no"
		}
		say(w, "%s\t%s\t%s\t%s\n", n.MAC, n.NetworkName, n.Model, connected)
	}
}
