package dev

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/client"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/placement"
)

// How long a node may take to answer, a cluster to become healthy, and how often
// they are asked meanwhile.
const (
	answerTime = 60 * time.Second
	healthTime = 2 * time.Minute
	askEvery   = 100 * time.Millisecond
)

// ask is a client of a node's own socket.
func ask(n *Node) *client.Client { return client.Unix(n.Dir.Socket()) }

// tokenFor is a join token for so many nodes.
func tokenFor(nodes int) schema.TokenSpec {
	return schema.TokenSpec{Name: "dev", TTL: 3600, Uses: nodes}
}

// await asks until the answer is nil, the process of n has ended, or the time is
// up; then it says what was missing.
func await(ctx context.Context, n *Node, within time.Duration, answer func(context.Context, *client.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	c := ask(n)
	defer c.Close()
	for {
		err := answer(ctx, c)
		if err == nil {
			return nil
		}
		if !n.process().Alive() {
			return model.Errorf(model.Unavailable, "the daemon of %s has ended; see %s", n.Name, n.Log)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", n.Name, err)
		case <-time.After(askEvery):
		}
	}
}

// awaitAnswer waits until a node's daemon answers, be it that there is no leader:
// the others may not have been started yet.
func awaitAnswer(ctx context.Context, n *Node) error {
	return await(ctx, n, answerTime, func(ctx context.Context, c *client.Client) error {
		_, err := c.Health(ctx)
		return err
	})
}

// awaitLeader waits until a node knows who leads.
func awaitLeader(ctx context.Context, n *Node) error {
	return await(ctx, n, answerTime, func(ctx context.Context, c *client.Client) error {
		h, err := c.Health(ctx)
		if err == nil && h.Status == schema.HealthUnavailable {
			err = model.Errorf(model.Unavailable, "%s", h.Reason)
		}
		return err
	})
}

// awaitPart waits until a node and those that run see each other, unless so many are
// stopped that the others may have no leader.
func (c *Cluster) awaitPart(ctx context.Context, n *Node) error {
	var running []*Node
	for i := range c.Nodes {
		if o := &c.Nodes[i]; o.PID != 0 && o.process().Alive() {
			running = append(running, o)
		}
	}
	if stopped := len(c.Nodes) - len(running); stopped > (placement.Voters(len(c.Nodes))-1)/2 {
		return nil
	}
	for _, o := range running {
		seen := []*Node{n}
		if o == n {
			seen = running
		}
		err := await(ctx, o, answerTime, func(ctx context.Context, cl *client.Client) error {
			return sees(ctx, cl, seen)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// sees returns nil if the node that answers sees all of these up.
func sees(ctx context.Context, cl *client.Client, nodes []*Node) error {
	list, err := cl.Nodes(ctx)
	if err != nil {
		return err
	}
	up := map[model.NodeID]bool{}
	for _, n := range list.Items {
		up[n.ID] = n.Up
	}
	for _, n := range nodes {
		if !up[n.ID] {
			return model.Errorf(model.Unavailable, "%s is not seen", n.Name)
		}
	}
	return nil
}

// addDisks gives every node its disks, all nodes at once.
func (c *Cluster) addDisks(ctx context.Context, o Options) error {
	if o.Disks == 0 {
		return nil
	}
	o.Say("making %d disks of %d GiB for each node", o.Disks, o.DiskSize>>30)
	var mu sync.Mutex // guards the nodes' disks
	group, ctx := errgroup.WithContext(ctx)
	for i := range c.Nodes {
		n := &c.Nodes[i]
		group.Go(func() error {
			cl := ask(n)
			defer cl.Close()
			for d := range o.Disks {
				path := filepath.Join(n.Dir.Disks(), fmt.Sprintf("disk%d", d+1))
				disk, err := cl.AddDisk(ctx, n.ID.String(), schema.DiskSpec{
					Path: path, Size: o.DiskSize, Sparse: !o.Reserve,
				})
				if err != nil {
					return fmt.Errorf("add disk %d of %s: %w", d+1, n.Name, err)
				}
				mu.Lock()
				n.Disks = append(n.Disks, Disk{disk.ID, path})
				mu.Unlock()
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return c.save()
}

// awaitHealthy waits until every node sees every other, every disk is online, and
// as many nodes vote as can.
func (c *Cluster) awaitHealthy(ctx context.Context, o Options) error {
	o.Say("waiting until the cluster is healthy")
	for i := range c.Nodes {
		err := await(ctx, &c.Nodes[i], healthTime, func(ctx context.Context, cl *client.Client) error {
			return c.healthy(ctx, cl, o)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) healthy(ctx context.Context, cl *client.Client, o Options) error {
	nodes, err := cl.Nodes(ctx)
	if err != nil {
		return err
	}
	up, voters, hypervisors := 0, 0, 0
	for _, n := range nodes.Items {
		if n.Up {
			up++
		}
		if n.Voter {
			voters++
		}
		if n.Hypervisor {
			hypervisors++
		}
	}
	want := 0
	for _, n := range c.Nodes {
		if n.LibvirtURI != "" {
			want++
		}
	}
	pool, err := cl.Pool(ctx)
	if err != nil {
		return err
	}
	switch {
	case up < o.Nodes:
		return model.Errorf(model.Unavailable, "%d of %d nodes are up", up, o.Nodes)
	case voters < placement.Voters(o.Nodes):
		return model.Errorf(model.Unavailable, "%d nodes vote", voters)
	case hypervisors < want:
		return model.Errorf(model.Unavailable, "%d of %d hypervisors answer", hypervisors, want)
	case pool.DisksOnline < o.Nodes*o.Disks:
		return model.Errorf(model.Unavailable, "%d of %d disks are online", pool.DisksOnline, o.Nodes*o.Disks)
	}
	return nil
}
