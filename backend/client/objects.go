package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/model"
)

// Meta says what answers; it needs no log-in.
func (c *Client) Meta(ctx context.Context) (schema.Meta, error) {
	return get[schema.Meta](ctx, c, "/meta")
}

// Health says whether the node can serve; it needs no log-in.
func (c *Client) Health(ctx context.Context) (schema.Health, error) {
	return get[schema.Health](ctx, c, "/health")
}

// Login makes a session.
func (c *Client) Login(ctx context.Context, user string, password model.Secret) (schema.LoginResult, error) {
	in := schema.Login{User: user, Password: password.Reveal()}
	return post[schema.LoginResult](ctx, c, "/login", in)
}

// Logout ends the session of the client's token.
func (c *Client) Logout(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/logout", nil, nil)
}

// Session says who the client is.
func (c *Client) Session(ctx context.Context) (schema.Session, error) {
	return get[schema.Session](ctx, c, "/session")
}

// ChangePassword replaces the caller's own password.
func (c *Client) ChangePassword(ctx context.Context, old, fresh model.Secret) error {
	in := schema.PasswordChange{Old: old.Reveal(), New: fresh.Reveal()}
	return c.call(ctx, http.MethodPost, "/password", in, nil)
}

// Join redeems a join token; it needs no log-in.
func (c *Client) Join(ctx context.Context, req schema.JoinRequest) (schema.JoinAnswer, error) {
	return post[schema.JoinAnswer](ctx, c, "/join", req)
}

// Tokens lists the join tokens.
func (c *Client) Tokens(ctx context.Context) (schema.List[schema.Token], error) {
	return get[schema.List[schema.Token]](ctx, c, "/tokens")
}

// CreateToken makes a join token.
func (c *Client) CreateToken(ctx context.Context, spec schema.TokenSpec) (schema.NewToken, error) {
	return post[schema.NewToken](ctx, c, "/tokens", spec)
}

// DeleteToken takes a join token back.
func (c *Client) DeleteToken(ctx context.Context, id string) error {
	return c.remove(ctx, at("tokens", id))
}

// Cluster is the whole at a glance.
func (c *Client) Cluster(ctx context.Context) (schema.Cluster, error) {
	return get[schema.Cluster](ctx, c, "/cluster")
}

// RotateKey begins to replace the gossip key.
func (c *Client) RotateKey(ctx context.Context) (schema.GossipKey, error) {
	return post[schema.GossipKey](ctx, c, "/cluster/key/rotate", nil)
}

// GossipKey says how far the change of the gossip key is.
func (c *Client) GossipKey(ctx context.Context) (schema.GossipKey, error) {
	return get[schema.GossipKey](ctx, c, "/cluster/key")
}

// RotateCA replaces the certificate authority.
func (c *Client) RotateCA(ctx context.Context) (schema.CA, error) {
	return post[schema.CA](ctx, c, "/cluster/ca/rotate", nil)
}

// FinishCA leaves nodes behind that have only certificates by the authority before.
func (c *Client) FinishCA(ctx context.Context) (schema.CA, error) {
	return post[schema.CA](ctx, c, "/cluster/ca/finish", nil)
}

// CA is the certificate authority, and how far the change of it is.
func (c *Client) CA(ctx context.Context) (schema.CA, error) {
	return get[schema.CA](ctx, c, "/cluster/ca")
}

// Nodes lists the members.
func (c *Client) Nodes(ctx context.Context) (schema.List[schema.Node], error) {
	return get[schema.List[schema.Node]](ctx, c, "/nodes")
}

// Node is one member.
func (c *Client) Node(ctx context.Context, ref string) (schema.Node, error) {
	return get[schema.Node](ctx, c, at("nodes", ref))
}

// DrainNode moves all machines off a member.
func (c *Client) DrainNode(ctx context.Context, ref string) (schema.Node, error) {
	return post[schema.Node](ctx, c, at("nodes", ref, "drain"), nil)
}

// UndrainNode lets machines run on a member again.
func (c *Client) UndrainNode(ctx context.Context, ref string) (out schema.Node, err error) {
	return out, c.call(ctx, http.MethodDelete, at("nodes", ref, "drain"), nil, &out)
}

// RemoveNode takes a member out for ever.
func (c *Client) RemoveNode(ctx context.Context, ref string) error {
	return c.remove(ctx, at("nodes", ref))
}

// Pool is all disks taken together.
func (c *Client) Pool(ctx context.Context) (schema.Pool, error) {
	return get[schema.Pool](ctx, c, "/pool")
}

// Disks lists the disks of the pool.
func (c *Client) Disks(ctx context.Context) (schema.List[schema.Disk], error) {
	return get[schema.List[schema.Disk]](ctx, c, "/disks")
}

// AddDisk makes a disk of a node part of the pool.
func (c *Client) AddDisk(ctx context.Context, node string, spec schema.DiskSpec) (schema.Disk, error) {
	return post[schema.Disk](ctx, c, at("nodes", node, "disks"), spec)
}

// Disk is one disk.
func (c *Client) Disk(ctx context.Context, id model.DiskID) (schema.Disk, error) {
	return get[schema.Disk](ctx, c, at("disks", id.String()))
}

// DrainDisk lets a disk leave the pool once it is empty.
func (c *Client) DrainDisk(ctx context.Context, id model.DiskID) (schema.Disk, error) {
	return post[schema.Disk](ctx, c, at("disks", id.String(), "drain"), nil)
}

// KeepDisk lets a disk stay in the pool after all.
func (c *Client) KeepDisk(ctx context.Context, id model.DiskID) (out schema.Disk, err error) {
	return out, c.call(ctx, http.MethodDelete, at("disks", id.String(), "drain"), nil, &out)
}

// ChangeCluster changes settings of the cluster.
func (c *Client) ChangeCluster(ctx context.Context, s schema.SettingsChange) (out schema.Settings, err error) {
	return out, c.call(ctx, http.MethodPatch, "/cluster", s, &out)
}

// ScrubDisk begins to verify all data of a disk.
func (c *Client) ScrubDisk(ctx context.Context, id model.DiskID) (schema.Task, error) {
	return post[schema.Task](ctx, c, at("disks", id.String(), "scrub"), nil)
}

// ScrubVolume begins to compare the copies of a volume.
func (c *Client) ScrubVolume(ctx context.Context, ref string) (schema.Task, error) {
	return post[schema.Task](ctx, c, at("volumes", ref, "scrub"), nil)
}

// Volumes lists the volumes, without their columns.
func (c *Client) Volumes(ctx context.Context) (schema.List[schema.Volume], error) {
	return get[schema.List[schema.Volume]](ctx, c, "/volumes")
}

// Volume is one volume with its columns.
func (c *Client) Volume(ctx context.Context, ref string) (schema.Volume, error) {
	return get[schema.Volume](ctx, c, at("volumes", ref))
}

// CreateVolume makes a volume.
func (c *Client) CreateVolume(ctx context.Context, spec schema.VolumeSpec) (schema.Volume, error) {
	return post[schema.Volume](ctx, c, "/volumes", spec)
}

// ResizeVolume changes a volume's size.
func (c *Client) ResizeVolume(ctx context.Context, ref string, size model.Bytes) (out schema.Volume, err error) {
	in := schema.VolumeChange{Size: size}
	return out, c.call(ctx, http.MethodPatch, at("volumes", ref), in, &out)
}

// DeleteVolume forgets a volume.
func (c *Client) DeleteVolume(ctx context.Context, ref string) error {
	return c.remove(ctx, at("volumes", ref))
}

// Images lists the volumes that new ones are made from.
func (c *Client) Images(ctx context.Context) (schema.List[schema.Volume], error) {
	return get[schema.List[schema.Volume]](ctx, c, "/images")
}

// Networks lists the networks.
func (c *Client) Networks(ctx context.Context) (schema.List[schema.Network], error) {
	return get[schema.List[schema.Network]](ctx, c, "/networks")
}

// Network is one network.
func (c *Client) Network(ctx context.Context, ref string) (schema.Network, error) {
	return get[schema.Network](ctx, c, at("networks", ref))
}

// CreateNetwork makes a network.
func (c *Client) CreateNetwork(ctx context.Context, spec schema.NetworkSpec) (schema.Network, error) {
	return post[schema.Network](ctx, c, "/networks", spec)
}

// ChangeNetwork replaces what is given of a network.
func (c *Client) ChangeNetwork(ctx context.Context, ref string, change schema.NetworkChange) (out schema.Network, err error) {
	return out, c.call(ctx, http.MethodPatch, at("networks", ref), change, &out)
}

// DeleteNetwork forgets a network.
func (c *Client) DeleteNetwork(ctx context.Context, ref string) error {
	return c.remove(ctx, at("networks", ref))
}

// VMs lists the machines.
func (c *Client) VMs(ctx context.Context) (schema.List[schema.VM], error) {
	return get[schema.List[schema.VM]](ctx, c, "/vms")
}

// VM is one machine.
func (c *Client) VM(ctx context.Context, ref string) (schema.VM, error) {
	return get[schema.VM](ctx, c, at("vms", ref))
}

// CreateVM makes a machine; with a copy of an image in it, that takes a while.
func (c *Client) CreateVM(ctx context.Context, spec schema.VMSpec) (schema.VM, error) {
	if spec.Disks == nil {
		spec.Disks = []schema.DiskFrom{}
	}
	return post[schema.VM](ctx, c, "/vms", spec)
}

// ChangeVM replaces what is given of a machine.
func (c *Client) ChangeVM(ctx context.Context, ref string, change schema.VMChange) (out schema.VM, err error) {
	return out, c.call(ctx, http.MethodPatch, at("vms", ref), change, &out)
}

// DeleteVM forgets a machine, and its volumes unless told to keep them.
func (c *Client) DeleteVM(ctx context.Context, ref string, keepDisks bool) error {
	return c.remove(ctx, at("vms", ref)+"?keep_disks="+strconv.FormatBool(keepDisks))
}

// PowerVM starts, stops, shuts down or resets a machine. For start, node may name
// where.
func (c *Client) PowerVM(ctx context.Context, ref string, do schema.PowerAction, node string) (schema.VM, error) {
	var in any
	if do == schema.PowerStart {
		in = schema.StartSpec{Node: node}
	}
	return post[schema.VM](ctx, c, at("vms", ref, string(do)), in)
}

// MigrateVM begins to move a running machine to another node, which the cluster
// chooses if none is named, and returns the task.
func (c *Client) MigrateVM(ctx context.Context, ref string, spec schema.MigrateSpec) (schema.Task, error) {
	return post[schema.Task](ctx, c, at("vms", ref, "migrate"), spec)
}

// Tasks lists long work, newest first.
func (c *Client) Tasks(ctx context.Context) (schema.List[schema.Task], error) {
	return get[schema.List[schema.Task]](ctx, c, "/tasks")
}

// CancelTask asks long work to stop.
func (c *Client) CancelTask(ctx context.Context, id model.TaskID) error {
	return c.remove(ctx, at("tasks", id.String()))
}

// Screen is what the screen of a running machine shows, as a PNG file.
func (c *Client) Screen(ctx context.Context, ref string) ([]byte, error) {
	req, err := c.request(ctx, http.MethodGet, at("vms", ref, "screen.png"), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.send(req)
	if err != nil {
		return nil, err
	}
	p, err := io.ReadAll(io.LimitReader(resp.Body, maxPicture))
	return p, errors.Join(err, resp.Body.Close())
}

// maxPicture bounds a screenshot.
const maxPicture = 80 << 20

// Audit lists who changed what, after an index.
func (c *Client) Audit(ctx context.Context, after uint64, limit int) (schema.List[model.AuditRow], error) {
	path := "/audit?after=" + strconv.FormatUint(after, 10) + "&limit=" + strconv.Itoa(limit)
	return get[schema.List[model.AuditRow]](ctx, c, path)
}

// VMHistory is what a machine did within the last seconds, in means of at least step
// seconds; with zero, as many as suit a chart.
func (c *Client) VMHistory(ctx context.Context, vm string, seconds, step int64) (schema.VMHistory, error) {
	path := at("vms", vm, "history") + "?seconds=" + strconv.FormatInt(seconds, 10) +
		"&step=" + strconv.FormatInt(step, 10)
	return get[schema.VMHistory](ctx, c, path)
}

// History is the last seconds of a topic.
func (c *Client) History(ctx context.Context, topic schema.Topic, seconds int) (schema.History, error) {
	path := "/metrics/history?topic=" + string(topic) + "&seconds=" + strconv.Itoa(seconds)
	return get[schema.History](ctx, c, path)
}
