package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/client"
	"drystone.example/drystone/backend/model"
)

// with opens the target and hands its client to a command.
func (a *app) with(cmd *cobra.Command, do func(c *client.Client) error) error {
	c, err := a.target.open(cmd.Context())
	if err != nil {
		return err
	}
	defer c.Close()
	return do(c)
}

func newStatus(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "The cluster at a glance", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(c *client.Client) error {
				cluster, err := c.Cluster(cmd.Context())
				if err != nil {
					return err
				}
				if a.json {
					return a.quorum(cluster, show(a, cluster, nil))
				}
				nodes, err := c.Nodes(cmd.Context())
				if err != nil {
					return err
				}
				names := namesOf(nodes)
				err = show(a, cluster, func(w io.Writer, c schema.Cluster) { printCluster(w, c, names) })
				say(a.out, "\n")
				return a.quorum(cluster, errors.Join(err, a.listNodes(nodes)))
			})
		},
	}
}

// quorum makes a status of a cluster that cannot work an error, after it was shown.
func (a *app) quorum(c schema.Cluster, err error) error {
	if err == nil && !c.Quorum {
		return model.Errorf(model.Unavailable,
			"the cluster has no leader: a majority of its voters is away; start their nodes")
	}
	return err
}

func printCluster(w io.Writer, c schema.Cluster, names map[model.NodeID]string) {
	hypervisor := "none"
	if c.Hypervisor {
		hypervisor = c.Accel
	}
	fields(w,
		"Cluster", c.Name+" ("+c.ID.String()+")",
		"Version", c.Version,
		"Leader", nameOf(names, c.Leader, "none"),
		"Nodes", nodesUp(c),
		"Pool", fmt.Sprintf("%s of %s used, %s kept to rebuild", size(c.Pool.Used), size(c.Pool.Size), size(c.Pool.Reserve)),
		"Volumes", fmt.Sprintf("%d, %d unavailable, %d of %d columns out of sync",
			c.VolumesTotal, c.VolumesUnavailable, c.ColumnsOutOfSync, c.ColumnsTotal),
		"Lost data", lostIn(c.VolumesLost), "Diverged", divergedIn(c.VolumesDiverged),
		"Machines", fmt.Sprintf("%d, %d running", c.VMsTotal, c.VMsRunning),
		"Memory", spareIn(c), "Node loss", lossIn(c, names),
		"Hypervisor", hypervisor,
	)
	for _, a := range c.Alarms {
		say(w, "Alarm (%s):\t%s (%s)\n", a.Severity, a.Text, ago(a.Since))
	}
}

// spareIn says what the nodes have for machines.
func spareIn(c schema.Cluster) string {
	if !c.Hypervisor {
		return ""
	}
	s := c.Spare
	return fmt.Sprintf("%s of %s promised to machines, which have %d processors on %d",
		size(s.MemoryPromised), size(s.Memory), s.CPUsPromised, s.CPUs)
}

// lossIn says what would become of the machines if a node were lost.
func lossIn(c schema.Cluster, names map[model.NodeID]string) string {
	s := c.Spare
	switch {
	case !c.Hypervisor || s.LossOf == 0:
		return ""
	case s.LossVMs == 0:
		return "all machines find room on the others"
	}
	return fmt.Sprintf("without %s, machines would find no room on the others: %d, with %s of memory",
		nameOf(names, s.LossOf, s.LossOf.String()), s.LossVMs, size(s.LossMemory))
}

func nodesUp(c schema.Cluster) string {
	text := fmt.Sprintf("%d of %d up", c.NodesUp, c.NodesTotal)
	if c.NodesMaintenance > 0 {
		text += fmt.Sprintf(", %d in maintenance", c.NodesMaintenance)
	}
	return text
}

// lostIn says which volumes have lost data.
func lostIn(volumes []schema.VolumeLost) string {
	var each []string
	for _, v := range volumes {
		each = append(each, fmt.Sprintf("%s in %d ranges of %s", size(v.Lost.Size), v.Lost.Count, v.Name))
	}
	return strings.Join(each, ", ")
}

func divergedIn(volumes int) string {
	if volumes == 0 {
		return ""
	}
	return fmt.Sprintf("copies of %d volumes claim to be the same and are not; see volume list --json", volumes)
}

func namesOf(nodes schema.List[schema.Node]) map[model.NodeID]string {
	names := map[model.NodeID]string{}
	for _, n := range nodes.Items {
		names[n.ID] = n.Name
	}
	return names
}

// nameOf is a node's name, its identifier if it has none, or a word for no node.
func nameOf(names map[model.NodeID]string, id model.NodeID, nobody string) string {
	switch {
	case id == 0:
		return nobody
	case names[id] == "":
		return id.String()
	}
	return names[id]
}

func newNode(a *app) *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List the nodes", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(c *client.Client) error {
				nodes, err := c.Nodes(cmd.Context())
				if err != nil {
					return err
				}
				return a.listNodes(nodes)
			})
		},
	}
	one := &cobra.Command{
		Use: "show NODE", Short: "Show a node", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(c *client.Client) error {
				n, err := c.Node(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return show(a, n, printNode)
			})
		},
	}
	var yes bool
	remove := &cobra.Command{
		Use: "remove NODE", Short: "Take a node out for ever", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(c *client.Client) error {
				n, err := c.Node(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				if err := a.confirm(yes, "take the node out of the cluster for ever", n.Name); err != nil {
					return err
				}
				if err := c.RemoveNode(cmd.Context(), n.ID.String()); err != nil {
					return err
				}
				a.said("node %s is removed", n.Name)
				return nil
			})
		},
	}
	remove.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return group("node", "Nodes of the cluster", list, one, newNodeDrain(a), newNodeUndrain(a), remove)
}

func (a *app) listNodes(nodes schema.List[schema.Node]) error {
	return list(a, nodes, "There are no nodes.", "NAME ID ADDRESS STATE SINCE ROLE MACHINES VERSION",
		func(n schema.Node) []string {
			return []string{
				n.Name, n.ID.String(), n.Address, stateOf(n), dash(ago(n.Since)), roleOf(n),
				strconv.Itoa(n.VMsRunning), n.Version,
			}
		})
}

// stateOf is whether a node is up, and whether machines run on it.
func stateOf(n schema.Node) string {
	state := "away"
	if n.Up {
		state = "up"
	}
	switch m := n.Maintenance; {
	case m != nil && m.Left > 0:
		state += ", draining"
	case m != nil:
		state += ", drained"
	}
	return state
}

func roleOf(n schema.Node) string {
	switch {
	case n.Leader:
		return "leader"
	case n.Voter:
		return "voter"
	}
	return "member"
}

func printNode(w io.Writer, n schema.Node) {
	fields(w,
		"Name", n.Name, "ID", n.ID.String(), "Address", n.Address, "Web page", n.API,
		"State", stateOf(n), "Maintenance", maintenance(n), "Since", ago(n.Since), "Role", roleOf(n), "Version", n.Version,
		"Processors", strconv.Itoa(n.CPUs), "Memory", size(n.Memory), "Hypervisor", yesNo(n.Hypervisor),
		"Machines running", strconv.Itoa(n.VMsRunning), "Joined", n.Joined.Local().Format(time.DateTime),
	)
	printStuck(w, n)
}

func newToken(a *app) *cobra.Command {
	var spec schema.TokenSpec
	var life time.Duration
	create := &cobra.Command{
		Use: "create", Short: "Make a token that lets a node join", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			spec.TTL = int64(life / time.Second)
			return a.with(cmd, func(c *client.Client) error {
				t, err := c.CreateToken(cmd.Context(), spec)
				if err != nil {
					return err
				}
				// The token alone, so that a script can take it.
				return show(a, t, func(w io.Writer, t schema.NewToken) { say(w, "%s\n", t.Token) })
			})
		},
	}
	create.Flags().StringVar(&spec.Name, "name", "", "what it is for")
	create.Flags().DurationVar(&life, "ttl", time.Hour, "how long it is good")
	create.Flags().IntVar(&spec.Uses, "uses", 1, "how many nodes may join with it")
	all := &cobra.Command{
		Use: "list", Short: "List join tokens", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, func(c *client.Client) error {
				tokens, err := c.Tokens(cmd.Context())
				if err != nil {
					return err
				}
				return list(a, tokens, "There are no join tokens.", "ID NAME USES-LEFT EXPIRES", func(t schema.Token) []string {
					return []string{t.ID, dash(t.Name), strconv.Itoa(t.Uses), t.Expires.Local().Format(time.DateTime)}
				})
			})
		},
	}
	remove := &cobra.Command{
		Use: "delete ID", Short: "Take a join token back", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(c *client.Client) error {
				if err := c.DeleteToken(cmd.Context(), args[0]); err != nil {
					return err
				}
				a.said("token %s is deleted", args[0])
				return nil
			})
		},
	}
	return group("token", "Tokens that let nodes join", create, all, remove)
}

func newVersion(a *app) *cobra.Command {
	type version struct {
		Version string `json:"version"`
	}
	return &cobra.Command{
		Use: "version", Short: "Print the version of this program", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return show(a, version{model.Version}, func(w io.Writer, v version) { say(w, "drystone %s\n", v.Version) })
		},
	}
}

// confirm asks on a terminal for the name of what is about to go. A program that
// calls us is taken to know what it does.
func (a *app) confirm(yes bool, what, name string) error {
	if yes || a.json || !isTerminal(a.in) {
		return nil
	}
	say(a.err, "This will %s. Type its name (%s) to go on: ", what, name)
	line, err := readLine(a.in)
	if err != nil {
		return err
	}
	if line != name {
		return errors.New("nothing was done: the name was not the same")
	}
	return nil
}
