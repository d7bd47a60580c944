// Package dev runs whole clusters on one machine: real daemons on loopback
// addresses, disks as files, and for each node a libvirtd of its own. Everything
// of a cluster lies under one folder; what runs is found again by its cluster.json.
package dev

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/node"
	"drystone.example/drystone/backend/proc"
	"drystone.example/drystone/backend/virt"
)

// fileVersion is the version of cluster.json.
const fileVersion = 1

// A Cluster is what cluster.json says; other tools rely on its shape.
type Cluster struct {
	Version   int             `json:"version"`
	ClusterID model.ClusterID `json:"cluster_id"`
	API       string          `json:"api"` // URL of the first node's web page
	User      string          `json:"user"`
	Password  string          `json:"password"` // of a cluster for development only
	CA        string          `json:"ca"`       // path of its certificate
	Nodes     []Node          `json:"nodes"`

	dir string
}

// A Node is one daemon of a Cluster.
type Node struct {
	Name       string       `json:"name"`
	ID         model.NodeID `json:"id"`
	Address    string       `json:"address"`
	API        string       `json:"api"`
	PID        int          `json:"pid"`       // of the daemon; zero while it is stopped
	PIDStart   uint64       `json:"pid_start"` // tells it from a later process of that number
	Dir        node.Dir     `json:"dir"`
	Log        string       `json:"log"`
	LibvirtURI string       `json:"libvirt_uri,omitempty"`
	Disks      []Disk       `json:"disks"`
}

// A Disk is one disk of a Node, a file.
type Disk struct {
	ID   model.DiskID `json:"id"`
	Path string       `json:"path"`
}

func (n Node) process() proc.ID { return proc.ID{PID: n.PID, Start: n.PIDStart} }

// Options say what cluster to start.
type Options struct {
	Dir         string
	Name        string // of the cluster
	Nodes       int
	Disks       int         // of each node
	DiskSize    model.Bytes // of each disk
	Reserve     bool        // the space of the disks at once; else as it is written
	Base        string      // first three bytes of the nodes' addresses
	Accelerator virt.Accelerator
	StorageOnly bool // without libvirt, though it be installed
	Say         func(format string, args ...any)
}

// Default returns the options of a cluster nobody said anything about.
func Default() Options {
	return Options{
		Name: "dev", Nodes: 3, Disks: 2, DiskSize: 8 << 30, Base: "127.0.1", Accelerator: virt.Auto,
		Say: func(string, ...any) {},
	}
}

// Validate reports every mistake at once.
func (o Options) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, model.Errorf(model.Invalid, format, args...))
		}
	}
	check(o.Dir != "", "a development cluster needs a folder (--dir)")
	check(o.Nodes >= 1 && o.Nodes <= 64, "a development cluster has 1 to 64 nodes, not %d", o.Nodes)
	check(o.Disks >= 0 && o.Disks <= 16, "a node of a development cluster has 0 to 16 disks, not %d", o.Disks)
	check(o.DiskSize >= 1<<30, "a disk has at least 1 GiB, not %d bytes", o.DiskSize)
	base, err := netip.ParseAddr(o.Base + ".1")
	check(err == nil && base.IsLoopback(), "the base %q is not the first three bytes of a loopback address", o.Base)
	errs = append(errs, model.ValidateName("cluster", o.Name))
	return errors.Join(errs...)
}

func (o Options) nodeDir(i int) node.Dir {
	return node.Dir(filepath.Join(o.Dir, fmt.Sprintf("node%d", i+1)))
}

// Load reads the cluster.json of a folder.
func Load(dir string) (*Cluster, error) {
	text, err := os.ReadFile(filepath.Join(dir, "cluster.json")) //nolint:gosec // named by root, who runs this
	if errors.Is(err, os.ErrNotExist) {
		return nil, model.Errorf(model.NotFound, "there is no development cluster in %s", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read cluster: %w", err)
	}
	c := &Cluster{dir: dir}
	if err := json.Unmarshal(text, c); err != nil {
		return nil, fmt.Errorf("read cluster: %w", err)
	}
	return c, nil
}

// save replaces cluster.json in one step.
func (c *Cluster) save() error {
	text, err := json.MarshalIndent(c, "", "  ") //nolint:gosec // the password of a cluster for development is meant to be read
	if err != nil {
		return fmt.Errorf("write cluster: %w", err)
	}
	path := filepath.Join(c.dir, "cluster.json")
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write cluster: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write cluster: %w", err)
	}
	return nil
}

// Node finds a node by name.
func (c *Cluster) Node(name string) (*Node, error) {
	for i := range c.Nodes {
		if c.Nodes[i].Name == name {
			return &c.Nodes[i], nil
		}
	}
	return nil, model.Errorf(model.NotFound, "there is no node %q in this cluster", name)
}

// Up starts a cluster and returns when it is healthy. What it started is stopped
// again when it fails; the folder stays, for its logs.
func Up(ctx context.Context, o Options) (_ *Cluster, err error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, fmt.Errorf("find folder: %w", err)
	}
	if _, err := os.Stat(filepath.Join(o.Dir, "cluster.json")); err == nil {
		return nil, model.Errorf(model.Conflict, "there is a development cluster in %s already; stop it with drystone dev down", o.Dir)
	}
	if err := os.MkdirAll(o.Dir, 0o711); err != nil { //nolint:gosec // QEMU's user passes through
		return nil, fmt.Errorf("make folder: %w", err)
	}
	c := &Cluster{Version: fileVersion, User: "admin", Password: rand.Text()[:20], dir: o.Dir, Nodes: []Node{}}
	if err := c.save(); err != nil { // from here on, Down finds what there is
		return nil, err
	}
	defer func() {
		if err != nil {
			clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			err = errors.Join(err, c.stopAll(clean))
		}
	}()
	locals, err := c.prepare(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := c.begin(ctx, o, locals); err != nil {
		return nil, err
	}
	if err := c.addDisks(ctx, o); err != nil {
		return nil, err
	}
	return c, c.awaitHealthy(ctx, o)
}

// prepare starts a libvirtd for each node, where libvirt is installed.
func (c *Cluster) prepare(ctx context.Context, o Options) ([]node.Local, error) {
	locals := make([]node.Local, o.Nodes)
	for i := range locals {
		locals[i] = node.Local{
			Dir: o.nodeDir(i), Name: fmt.Sprintf("node%d", i+1), Address: fmt.Sprintf("%s.%d", o.Base, i+1),
			Accelerator: o.Accelerator,
		}
	}
	if o.StorageOnly {
		return locals, nil
	}
	if err := LibvirtInstalled(); err != nil {
		o.Say("storage only: %v", err)
		return locals, nil
	}
	o.Say("starting a libvirtd for each node")
	var wait sync.WaitGroup
	errs := make([]error, o.Nodes)
	for i := range locals {
		wait.Go(func() {
			dir := string(locals[i].Dir)
			if errs[i] = os.MkdirAll(dir, 0o711); errs[i] != nil { //nolint:gosec // QEMU's user passes through
				return
			}
			l, err := StartLibvirt(ctx, dir, locals[i].Name, hostUUID(locals[i].Address))
			if err != nil {
				errs[i] = fmt.Errorf("start libvirtd of %s: %w", locals[i].Name, err)
				return
			}
			locals[i].LibvirtURI, locals[i].LibvirtPIDs = l.URI, l.PIDs
		})
	}
	wait.Wait()
	return locals, errors.Join(errs...)
}

// hostUUID makes the identity that libvirtd gives a host out of its address.
func hostUUID(address string) string {
	a := netip.MustParseAddr(address).As4()
	return fmt.Sprintf("6472790a-5354-4f4e-8000-%02x%02x%02x%02x0000", a[0], a[1], a[2], a[3])
}

// begin makes the first node a cluster and lets the others join it.
func (c *Cluster) begin(ctx context.Context, o Options, locals []node.Local) error {
	o.Say("setting %s up as the first node", locals[0].Name)
	born, err := node.Init(ctx, node.Birth{
		Local: locals[0], ClusterName: o.Name, User: c.User, Password: model.NewSecret(c.Password),
	})
	if err != nil {
		return fmt.Errorf("set first node up: %w", err)
	}
	c.ClusterID, c.CA = born.Cluster, born.CA
	if err := c.add(ctx, locals[0], born.Node); err != nil {
		return err
	}
	if err := awaitLeader(ctx, &c.Nodes[0]); err != nil {
		return err
	}
	c.API = c.Nodes[0].API
	if o.Nodes == 1 {
		return c.save()
	}
	token, err := ask(&c.Nodes[0]).CreateToken(ctx, tokenFor(o.Nodes-1))
	if err != nil {
		return fmt.Errorf("make join token: %w", err)
	}
	for _, l := range locals[1:] {
		o.Say("joining %s", l.Name)
		cfg, err := node.Join(ctx, l, locals[0].Address, model.NewSecret(token.Token))
		if err != nil {
			return fmt.Errorf("join %s: %w", l.Name, err)
		}
		if err := c.add(ctx, l, cfg.Node); err != nil {
			return err
		}
	}
	return nil
}

// add starts the daemon of a node that was just set up and waits for its answer.
func (c *Cluster) add(ctx context.Context, l node.Local, id model.NodeID) error {
	c.Nodes = append(c.Nodes, Node{
		Name: l.Name, ID: id, Address: l.Address, API: (node.Config{Address: l.Address}).URL(), Dir: l.Dir,
		Log: filepath.Join(string(l.Dir), "log"), LibvirtURI: l.LibvirtURI, Disks: []Disk{},
	})
	return c.startNode(ctx, &c.Nodes[len(c.Nodes)-1])
}

// Start starts the daemon of a node that is stopped. It waits until the node takes
// part in the cluster; where too few others run for that, for its answer.
func (c *Cluster) Start(ctx context.Context, name string) error {
	n, err := c.Node(name)
	if err != nil {
		return err
	}
	if n.PID != 0 && n.process().Alive() {
		return model.Errorf(model.Conflict, "%s runs already, as process %d", name, n.PID)
	}
	if n.LibvirtURI != "" { // it may have died with the node
		if _, err := StartLibvirt(ctx, string(n.Dir), n.Name, hostUUID(n.Address)); err != nil {
			return fmt.Errorf("start libvirtd of %s: %w", n.Name, err)
		}
	}
	if err := c.startNode(ctx, n); err != nil {
		return err
	}
	return c.awaitPart(ctx, n)
}

func (c *Cluster) startNode(ctx context.Context, n *Node) error {
	id, err := spawn(n.Dir, n.Log)
	if err != nil {
		return err
	}
	n.PID, n.PIDStart = id.PID, id.Start
	if err := c.save(); err != nil {
		return err
	}
	return awaitAnswer(ctx, n)
}

// Kill ends a node's daemon as a power failure would. Its guests are the guard's
// from then on.
func (c *Cluster) Kill(ctx context.Context, name string) error {
	n, err := c.Node(name)
	if err != nil {
		return err
	}
	if n.PID == 0 {
		return model.Errorf(model.Conflict, "%s is stopped already", name)
	}
	if err := kill(ctx, n.process()); err != nil {
		return err
	}
	n.PID, n.PIDStart = 0, 0
	return c.save()
}

// Down stops everything of a cluster and removes its folder.
func Down(ctx context.Context, dir string) error {
	c, err := Load(dir)
	if err != nil {
		return err
	}
	if err := c.stopAll(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove cluster: %w", err)
	}
	return nil
}

// stopAll stops guests, daemons, guards and libvirtds, in this order, all nodes
// at once.
func (c *Cluster) stopAll(ctx context.Context) error {
	dirs, err := filepath.Glob(filepath.Join(c.dir, "node*"))
	if err != nil {
		return fmt.Errorf("find nodes: %w", err)
	}
	var wait sync.WaitGroup
	errs := make([]error, len(c.Nodes)+len(dirs))
	for i, n := range c.Nodes {
		wait.Go(func() {
			if n.PID != 0 {
				errs[i] = stop(ctx, n.process())
			}
			errs[i] = errors.Join(errs[i], stopGuard(ctx, n.Dir))
		})
	}
	wait.Wait()
	for i, dir := range dirs {
		wait.Go(func() { errs[len(c.Nodes)+i] = StopLibvirt(ctx, dir) })
	}
	wait.Wait()
	return errors.Join(errs...)
}
