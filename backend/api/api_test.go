package api_test

import (
	"strings"
	"testing"

	"drystone.example/drystone/backend/api/apitest"
	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/model"
)

func TestVolumes(t *testing.T) {
	r := apitest.New(t)
	ctx, c := t.Context(), r.As(t, model.Admin)

	made, err := c.CreateVolume(ctx, schema.VolumeSpec{Name: "data", Size: 1 << 30, Copies: 2})
	if err != nil {
		t.Fatalf("CreateVolume: %v", err)
	}
	if made.State != schema.VolumeHealthy || len(made.Columns) != 2 || made.Columns[0].Members[1].Node != apitest.Other {
		t.Errorf("CreateVolume = %+v", made)
	}
	for _, ref := range []string{"data", "DATA", made.ID.String()} {
		v, err := c.Volume(ctx, ref)
		if err != nil || v.ID != made.ID || len(v.Columns) != 2 {
			t.Errorf("Volume(%s) = %+v, %v", ref, v, err)
		}
	}
	list, err := c.Volumes(ctx)
	if err != nil || len(list.Items) != 1 || list.Items[0].Columns != nil || list.Items[0].ColumnsTotal != 2 {
		t.Errorf("Volumes = %+v, %v", list, err)
	}
	images, err := c.Images(ctx)
	if err != nil || images.Items == nil || len(images.Items) != 0 {
		t.Errorf("Images = %+v, %v, want an empty list", images, err)
	}
	if v, err := c.ResizeVolume(ctx, "data", 2<<30); err != nil || v.Size != 2<<30 {
		t.Errorf("ResizeVolume = %+v, %v", v, err)
	}
	_, err = c.CreateVolume(ctx, schema.VolumeSpec{Name: "data", Size: 1 << 30, Copies: 2})
	apitest.CodeIs(t, "a second volume of that name", err, model.Conflict)
	_, err = c.CreateVolume(ctx, schema.VolumeSpec{Name: "odd", Size: 1<<30 + 1, Copies: 2})
	apitest.CodeIs(t, "a size that is no multiple of a sector", err, model.Invalid)
	_, err = c.CreateVolume(ctx, schema.VolumeSpec{Name: "../x", Size: 1 << 30, Copies: 2})
	apitest.CodeIs(t, "a name with a slash", err, model.Invalid)
	_, err = c.Volume(ctx, "none")
	apitest.CodeIs(t, "a volume that is not there", err, model.NotFound)
	if err := c.DeleteVolume(ctx, "data"); err != nil {
		t.Errorf("DeleteVolume: %v", err)
	}
	apitest.CodeIs(t, "deleting it again", c.DeleteVolume(ctx, "data"), model.NotFound)
}

func TestSnapshots(t *testing.T) {
	r := apitest.New(t)
	ctx, c := t.Context(), r.As(t, model.Admin)
	for _, name := range []string{"data", "more"} {
		if _, err := c.CreateVolume(ctx, schema.VolumeSpec{Name: name, Size: 1 << 30, Copies: 2}); err != nil {
			t.Fatal(err)
		}
	}
	made, err := c.CreateSnapshot(ctx, "data", schema.SnapshotSpec{Name: "monday"})
	if err != nil || made.VolumeName != "data" || made.Size != 1<<30 || made.Created.IsZero() {
		t.Fatalf("CreateSnapshot = %+v, %v", made, err)
	}
	if _, err := c.CreateSnapshot(ctx, "more", schema.SnapshotSpec{Name: "monday"}); err != nil {
		t.Errorf("a snapshot of that name of another volume: %v", err)
	}
	viewer := r.As(t, model.Viewer)
	for volume, want := range map[string]int{"": 2, "data": 1} {
		if l, err := viewer.Snapshots(ctx, volume); err != nil || len(l.Items) != want {
			t.Errorf("Snapshots(%q) = %+v, %v, want %d", volume, l.Items, err, want)
		}
	}
	for _, ref := range []string{"data@monday", "DATA@Monday", made.ID.String(), made.Volume.String() + "@monday"} {
		if got, err := viewer.Snapshot(ctx, ref); err != nil || got != made {
			t.Errorf("Snapshot(%q) = %+v, %v, want %+v", ref, got, err, made)
		}
	}
	_, err = viewer.CreateSnapshot(ctx, "data", schema.SnapshotSpec{Name: "x"})
	apitest.CodeIs(t, "a viewer cuts", err, model.Denied)
	_, err = c.CreateSnapshot(ctx, "data", schema.SnapshotSpec{Name: "Monday"})
	apitest.CodeIs(t, "the name is taken", err, model.Conflict)
	_, err = c.CreateSnapshot(ctx, "data", schema.SnapshotSpec{Name: "a@b"})
	apitest.CodeIs(t, "a name with an @", err, model.Invalid)
	_, err = c.CreateSnapshot(ctx, "none", schema.SnapshotSpec{Name: "x"})
	apitest.CodeIs(t, "a volume that is not there", err, model.NotFound)
	for _, ref := range []string{"monday", "data@tuesday", "none@monday"} {
		_, err = c.Snapshot(ctx, ref)
		apitest.CodeIs(t, ref, err, model.NotFound)
	}
	deleteAndRevert(t, r)
	if err := c.DeleteVolume(ctx, "data"); err != nil {
		t.Fatal(err)
	}
	if l, err := c.Snapshots(ctx, ""); err != nil || len(l.Items) != 1 {
		t.Errorf("with the volume gone its snapshots are %+v, %v", l.Items, err)
	}
}

// deleteAndRevert ends with data having snapshots that nobody counts.
func deleteAndRevert(t *testing.T, r *apitest.Rig) {
	t.Helper()
	ctx, c, viewer := t.Context(), r.As(t, model.Admin), r.As(t, model.Viewer)
	_, err := c.RevertSnapshot(ctx, "data@tuesday", schema.RevertSpec{})
	apitest.CodeIs(t, "revert to a snapshot that is not there", err, model.NotFound)
	_, err = c.RevertSnapshot(ctx, "data@monday", schema.RevertSpec{NoSnapshot: true, Snapshot: "x"})
	apitest.CodeIs(t, "a name for no snapshot", err, model.Invalid)
	_, err = viewer.RevertSnapshot(ctx, "data@monday", schema.RevertSpec{})
	apitest.CodeIs(t, "a viewer reverts", err, model.Denied)
	v, err := c.RevertSnapshot(ctx, "data@monday", schema.RevertSpec{})
	if err != nil || v.Name != "data" {
		t.Fatalf("RevertSnapshot = %+v, %v", v, err)
	}
	l, err := c.Snapshots(ctx, "data")
	if err != nil || len(l.Items) != 2 || !strings.HasPrefix(l.Items[1].Name, "before-revert-") {
		t.Errorf("after the revert the snapshots are %+v, %v", l.Items, err)
	}
	apitest.CodeIs(t, "cancel a revert that is done", c.CancelRevert(ctx, "data"), model.Conflict)
	apitest.CodeIs(t, "a viewer cancels", viewer.CancelRevert(ctx, "data"), model.Denied)
	apitest.CodeIs(t, "a viewer deletes", viewer.DeleteSnapshot(ctx, "data@monday"), model.Denied)
	if err := c.DeleteSnapshot(ctx, "data@monday"); err != nil {
		t.Errorf("DeleteSnapshot: %v", err)
	}
	apitest.CodeIs(t, "deleting it again", c.DeleteSnapshot(ctx, "data@monday"), model.NotFound)
	if v, err := c.Volume(ctx, "data"); err != nil || v.Tending == nil || v.Tending.Kind != schema.Freeing {
		t.Errorf("with a snapshot deleted the volume is %+v, %v", v, err)
	}
}

func TestClones(t *testing.T) {
	r := apitest.New(t)
	ctx, c := t.Context(), r.As(t, model.Admin)
	if _, err := c.CreateVolume(ctx, schema.VolumeSpec{Name: "data", Size: 1 << 30, Copies: 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateSnapshot(ctx, "data", schema.SnapshotSpec{Name: "monday"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ResizeVolume(ctx, "data", 2<<30); err != nil {
		t.Fatal(err)
	}
	for name, spec := range map[string]schema.CloneSpec{
		"as it is": {Name: "twin"}, "as it was": {Name: "elder", Snapshot: "Monday"},
	} {
		v, err := c.CloneVolume(ctx, "data", spec)
		want := model.Bytes(2 << 30)
		if spec.Snapshot != "" {
			want = 1 << 30
		}
		if err != nil || v.Name != spec.Name || v.Size != want || v.CloneOf == 0 || v.Kind != model.VolumeDisk {
			t.Errorf("%s: CloneVolume = %+v, %v", name, v, err)
		}
	}
	_, err := r.As(t, model.Viewer).CloneVolume(ctx, "data", schema.CloneSpec{Name: "x"})
	apitest.CodeIs(t, "a viewer clones", err, model.Denied)
	_, err = c.CloneVolume(ctx, "data", schema.CloneSpec{Name: "twin"})
	apitest.CodeIs(t, "the name is taken", err, model.Conflict)
	_, err = c.CloneVolume(ctx, "data", schema.CloneSpec{Name: "a/b"})
	apitest.CodeIs(t, "a name with a slash", err, model.Invalid)
	_, err = c.CloneVolume(ctx, "none", schema.CloneSpec{Name: "x"})
	apitest.CodeIs(t, "a volume that is not there", err, model.NotFound)
	_, err = c.CloneVolume(ctx, "data", schema.CloneSpec{Name: "x", Snapshot: "tuesday"})
	apitest.CodeIs(t, "a snapshot that is not there", err, model.NotFound)
	if err := c.DeleteVolume(ctx, "data"); err != nil {
		t.Errorf("deleting what was cloned: %v", err)
	}
}

// A volume's state follows its members' disks and their nodes.
func TestVolumeState(t *testing.T) {
	r := apitest.New(t)
	ctx, c := t.Context(), r.Root()
	if _, err := c.CreateVolume(ctx, schema.VolumeSpec{Name: "data", Size: 1 << 30, Copies: 2}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		up   map[model.NodeID]bool
		want schema.VolumeState
	}{
		{map[model.NodeID]bool{1: true, 2: true}, schema.VolumeHealthy},
		{map[model.NodeID]bool{1: true, 2: false}, schema.VolumeDegraded},
		{map[model.NodeID]bool{1: false}, schema.VolumeUnavailable},
	} {
		r.Service.Set(func(s *apitest.Service) { s.Up = step.up })
		v, err := c.Volume(ctx, "data")
		if err != nil || v.State != step.want {
			t.Errorf("with nodes %v the volume is %s, %v, want %s", step.up, v.State, err, step.want)
		}
	}
	disks, err := c.Disks(ctx)
	if err != nil || disks.Items[0].State != model.DiskOffline || disks.Items[0].ChecksumErrors != 3 {
		t.Errorf("Disks = %+v, %v", disks, err)
	}
}

func TestMachines(t *testing.T) {
	r := apitest.New(t)
	ctx, c := t.Context(), r.As(t, model.Admin)
	spec := schema.VMSpec{Name: "web", CPUs: 2, Memory: 512 << 20, Disks: []schema.DiskFrom{{Size: 1 << 30}}}
	vm, err := c.CreateVM(ctx, spec)
	if err != nil || len(vm.Disks) != 1 || vm.Disks[0].Name != "web-0" || vm.Power != model.PowerOff {
		t.Fatalf("CreateVM = %+v, %v", vm, err)
	}
	for _, bad := range []schema.DiskFrom{{}, {Size: 1 << 30, Image: "x"}, {Image: "none"}, {Image: "web-0"}, {Volume: "none"}, {Size: 7}} {
		spec := spec
		spec.Name, spec.Disks = "bad", []schema.DiskFrom{bad}
		if _, err := c.CreateVM(ctx, spec); err == nil {
			t.Errorf("a disk from %+v was taken", bad)
		}
	}
	spec.Name, spec.Memory = "bad", 1000
	_, err = c.CreateVM(ctx, spec)
	apitest.CodeIs(t, "too little memory", err, model.Invalid)

	op := r.As(t, model.Operator)
	started, err := op.PowerVM(ctx, "web", schema.PowerStart, "n2")
	if err != nil || started.Power != model.PowerOn || started.NodeName != "n2" {
		t.Errorf("start = %+v, %v", started, err)
	}
	_, err = op.PowerVM(ctx, "web", schema.PowerStart, "nowhere")
	apitest.CodeIs(t, "start on a node that is not there", err, model.NotFound)
	if vm, err := op.PowerVM(ctx, "web", schema.PowerStop, ""); err != nil || vm.Power != model.PowerOff {
		t.Errorf("stop = %+v, %v", vm, err)
	}
	volume, err := c.Volume(ctx, "web-0")
	if err != nil || volume.AttachedTo != vm.ID {
		t.Errorf("Volume = %+v, %v, want attached to %s", volume, err, vm.ID)
	}
	apitest.CodeIs(t, "an operator deletes", op.DeleteVM(ctx, "web", false), model.Denied)
}

// Networks and the network cards on them are made, changed and taken away.
func TestNetworks(t *testing.T) {
	r := apitest.New(t)
	ctx, c := t.Context(), r.As(t, model.Admin)
	lan, err := c.CreateNetwork(ctx, schema.NetworkSpec{
		Name: "lan", Bridge: "br0", VLAN: 20, Nodes: []schema.BridgeFor{{Node: "n2", Bridge: "br7"}},
	})
	if err != nil || lan.Kind != model.NetworkBridge || lan.VLAN != 20 || len(lan.Nodes) != 1 || lan.Nodes[0].NodeName != "n2" {
		t.Fatalf("CreateNetwork = %+v, %v", lan, err)
	}
	if _, err := c.CreateNetwork(ctx, schema.NetworkSpec{Name: "out", Kind: model.NetworkUser}); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []schema.NetworkSpec{
		{Name: "x"},
		{Name: "x", Bridge: "br/0"},
		{Name: "x", Bridge: "b", VLAN: 4095},
		{Name: "x", Kind: model.NetworkUser, Bridge: "b"},
		{Name: "x", Bridge: "b", Nodes: []schema.BridgeFor{{Node: "n2", Bridge: "a/b"}}},
	} {
		_, err := c.CreateNetwork(ctx, bad)
		apitest.CodeIs(t, "a network that cannot be", err, model.Invalid)
	}
	vm, err := c.CreateVM(ctx, schema.VMSpec{
		Name: "web", CPUs: 1, Memory: 512 << 20, Disks: []schema.DiskFrom{{Size: 1 << 30}},
		NICs: []schema.NICSpec{{Network: "lan"}, {Network: "out", Model: model.NICE1000, MAC: "02:00:00:00:00:AB", Disconnected: true}},
	})
	if err != nil || len(vm.NICs) != 2 || vm.NICs[0].Model != model.NICVirtio || vm.NICs[0].NetworkName != "lan" || !vm.NICs[0].Connected ||
		vm.NICs[1].MAC != "02:00:00:00:00:ab" || vm.NICs[1].Connected {
		t.Fatalf("CreateVM = %+v, %v", vm, err)
	}
	apitest.CodeIs(t, "deleting a network in use", c.DeleteNetwork(ctx, "lan"), model.Conflict)
	if n, err := c.Network(ctx, "lan"); err != nil || n.Cards != 1 {
		t.Errorf("Network = %+v, %v", n, err)
	}
	if _, err := c.PowerVM(ctx, "web", schema.PowerStart, ""); err != nil {
		t.Fatal(err)
	}
	on, out := true, "out"
	vm, err = c.ChangeVM(ctx, "web", schema.VMChange{
		RemoveNICs: []string{string(vm.NICs[0].MAC)}, AddNICs: []schema.NICSpec{{Network: out}},
		SetNICs: []schema.NICChange{{MAC: "02:00:00:00:00:ab", Network: &out, Connected: &on}},
	})
	if err != nil || len(vm.NICs) != 2 || vm.NICs[0].NetworkName != "out" || !vm.NICs[1].Connected {
		t.Errorf("ChangeVM = %+v, %v", vm.NICs, err)
	}
	_, err = c.ChangeVM(ctx, "web", schema.VMChange{AddNICs: []schema.NICSpec{{Network: "out", MAC: "02:00:00:00:00:ab"}}})
	apitest.CodeIs(t, "an address that is taken", err, model.Conflict)
	_, err = c.ChangeVM(ctx, "web", schema.VMChange{AddNICs: []schema.NICSpec{{Network: "none"}}})
	apitest.CodeIs(t, "a network that is not there", err, model.NotFound)
	bridge := "br9"
	if n, err := c.ChangeNetwork(ctx, "lan", schema.NetworkChange{Bridge: &bridge}); err != nil || n.Bridge != "br9" || len(n.Nodes) != 1 {
		t.Errorf("ChangeNetwork = %+v, %v", n, err)
	}
	_, err = r.As(t, model.Operator).CreateNetwork(ctx, schema.NetworkSpec{Name: "x", Bridge: "br0"})
	apitest.CodeIs(t, "an operator makes a network", err, model.Denied)
	if err := c.DeleteNetwork(ctx, "lan"); err != nil {
		t.Error(err)
	}
}

func TestClusterNodesPool(t *testing.T) {
	r := apitest.New(t)
	ctx, c := t.Context(), r.As(t, model.Viewer)
	cluster, err := c.Cluster(ctx)
	if err != nil || cluster.Name != "demo" || cluster.NodesUp != 2 || !cluster.Quorum || cluster.Accel != "tcg" {
		t.Errorf("Cluster = %+v, %v", cluster, err)
	}
	nodes, err := c.Nodes(ctx)
	if err != nil || len(nodes.Items) != 2 || !nodes.Items[0].Leader || nodes.Items[1].Leader || nodes.Items[0].CPUs != 4 {
		t.Errorf("Nodes = %+v, %v", nodes, err)
	}
	pool, err := c.Pool(ctx)
	if err != nil || pool.Size != 16<<30 || pool.Used != 3<<30 || pool.Reserve != 2<<30 || pool.DisksOnline != 2 {
		t.Errorf("Pool = %+v, %v", pool, err)
	}
	meta, err := r.With(t, model.Secret{}).Meta(ctx)
	if err != nil || meta.Product != "drystone" || meta.NodeName != "n1" || meta.ClusterID != 42 {
		t.Errorf("Meta = %+v, %v", meta, err)
	}
	disk, err := r.As(t, model.Admin).AddDisk(ctx, "n2", schema.DiskSpec{Path: "/d/3", Size: 1 << 30})
	if err != nil || disk.NodeName != "n2" || disk.State != model.DiskOnline {
		t.Errorf("AddDisk = %+v, %v", disk, err)
	}
	_, err = r.As(t, model.Admin).AddDisk(ctx, "n2", schema.DiskSpec{Path: "../d", Size: 1 << 30})
	apitest.CodeIs(t, "a path that is not absolute", err, model.Invalid)
}

// Without a leader nothing is changed and nothing old is shown as new; what says
// itself that there is no quorum still answers.
func TestNoLeader(t *testing.T) {
	r := apitest.New(t)
	ctx, c := t.Context(), r.As(t, model.Admin)
	r.Record.SetAway(model.Errorf(model.Unavailable, "there is no leader"))
	cluster, err := c.Cluster(ctx)
	if err != nil || cluster.Quorum || cluster.NodesTotal != 2 {
		t.Errorf("Cluster = %+v, %v", cluster, err)
	}
	health, err := c.Health(ctx)
	if err != nil || health.Status != schema.HealthUnavailable || health.Leader {
		t.Errorf("Health = %+v, %v", health, err)
	}
	_, err = c.Volumes(ctx)
	apitest.CodeIs(t, "Volumes", err, model.Unavailable)
	_, err = c.Login(ctx, "owner", model.NewSecret(apitest.Password))
	apitest.CodeIs(t, "Login", err, model.Unavailable)
}

func TestTokensAndAudit(t *testing.T) {
	r := apitest.New(t)
	ctx, c := t.Context(), r.As(t, model.Admin)
	made, err := c.CreateToken(ctx, schema.TokenSpec{})
	if err != nil || made.Uses != 1 || made.Token == "" {
		t.Fatalf("CreateToken = %+v, %v", made, err)
	}
	list, err := c.Tokens(ctx)
	if err != nil || len(list.Items) != 2 {
		t.Errorf("Tokens = %+v, %v", list, err)
	}
	if err := c.DeleteToken(ctx, made.ID); err != nil {
		t.Errorf("DeleteToken: %v", err)
	}
	apitest.CodeIs(t, "deleting it again", c.DeleteToken(ctx, made.ID), model.NotFound)

	rows, err := c.Audit(ctx, 0, 1000)
	if err != nil || len(rows.Items) < 2 {
		t.Fatalf("Audit = %+v, %v", rows, err)
	}
	last := rows.Items[len(rows.Items)-1]
	if last.Verb != "token.delete" || last.Actor.User != "admin" || last.Actor.Role != model.Admin ||
		last.Actor.Address != "127.0.0.1" || last.Actor.Request == "" {
		t.Errorf("the last row is %+v", last)
	}
	after, err := c.Audit(ctx, last.Index-1, 10)
	if err != nil || len(after.Items) != 1 {
		t.Errorf("Audit after the last but one = %+v, %v", after, err)
	}
	_, err = c.Join(ctx, schema.JoinRequest{TokenID: "abcdefgh", Secret: "x", CSR: []byte("x"), Name: "n3", Address: "192.0.2.3"})
	apitest.CodeIs(t, "joining with a token that is not good", err, model.Denied)
	apitest.CodeIs(t, "cancelling a task that is not there", c.CancelTask(ctx, 5), model.NotFound)
	tasks, err := c.Tasks(ctx)
	if err != nil || tasks.Items == nil {
		t.Errorf("Tasks = %+v, %v, want an empty list", tasks, err)
	}
}

// What a machine did is asked for by range and step; what nobody knows is null, and who
// did not answer is named.
func TestVMHistory(t *testing.T) {
	r := apitest.New(t)
	ctx, c := t.Context(), r.As(t, model.Viewer)
	vm, err := r.As(t, model.Admin).CreateVM(ctx, schema.VMSpec{
		Name: "web", CPUs: 1, Memory: 64 << 20, Disks: []schema.DiskFrom{{Size: 1 << 30}},
	})
	if err != nil {
		t.Fatal(err)
	}
	h, err := c.VMHistory(ctx, "web", 86400, 0)
	if err != nil || h.ID != vm.ID || h.Step != 120 || len(h.T) != 720 && len(h.T) != 721 {
		t.Fatalf("a day is %d steps of %d s of %v: %v", len(h.T), h.Step, h.ID, err)
	}
	if len(h.Missing) != 1 || h.Missing[0] != "n2" {
		t.Errorf("%v did not answer, want n2", h.Missing)
	}
	if len(h.Series) != 8 || len(h.Series["cpu"]) != len(h.T) || h.Series["cpu"][0] != nil {
		t.Errorf("the series are %v", h.Series)
	}
	_, err = c.VMHistory(ctx, "none", 60, 0)
	apitest.CodeIs(t, "a machine that is not there", err, model.NotFound)
	_, err = c.VMHistory(ctx, "web", 3*365*86400, 0)
	apitest.CodeIs(t, "three years", err, model.Invalid)
}

// The limits of a machine's disks are changed part by part and shown.
func TestVMLimits(t *testing.T) {
	r := apitest.New(t)
	ctx, c := t.Context(), r.As(t, model.Admin)
	_, err := c.CreateVM(ctx, schema.VMSpec{Name: "web", CPUs: 1, Memory: 64 << 20, Disks: []schema.DiskFrom{{Size: 1 << 30}}})
	if err != nil {
		t.Fatal(err)
	}
	iops, few, burst, bytes := int64(500), int64(1), int64(10), model.Bytes(100<<20)
	if _, err := c.ChangeVM(ctx, "web", schema.VMChange{IOPS: &iops, IOBurst: &burst}); err != nil {
		t.Fatal(err)
	}
	vm, err := c.ChangeVM(ctx, "web", schema.VMChange{IOBytes: &bytes})
	if want := (schema.IOLimits{IOPS: 500, Bytes: 100 << 20, Burst: 10}); err != nil || vm.Limits != want {
		t.Errorf("the limits are %+v, want %+v: %v", vm.Limits, want, err)
	}
	_, err = c.ChangeVM(ctx, "web", schema.VMChange{IOPS: &few})
	apitest.CodeIs(t, "a limit that starves the guest", err, model.Invalid)
}
