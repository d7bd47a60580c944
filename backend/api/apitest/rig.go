// Package apitest runs a node's API for tests of it and of its clients: the real
// server with the real record of a cluster of two nodes, and a Service that does
// in one process what takes a cluster.
package apitest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"drystone.example/drystone/backend/api"
	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/auth"
	"drystone.example/drystone/backend/client"
	"drystone.example/drystone/backend/console"
	"drystone.example/drystone/backend/fetch"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/metrics"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/shelf"
	"drystone.example/drystone/backend/spool"
)

// What every cluster here has: two nodes, named n1 and n2, each with a disk, and a
// user named after each role.
const (
	Self     = model.NodeID(1) // the node that serves
	Other    = model.NodeID(2)
	Password = "a wall without mortar" // of every user
)

// A Record is the real record of a single node: the real state, without raft.
type Record struct {
	store *state.Store

	mu    sync.Mutex
	index uint64
	away  error // what View and Apply answer, as if there were no leader
}

func (r *Record) Apply(_ context.Context, by model.Actor, c command.Command) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away != nil {
		return nil, r.away
	}
	r.index++
	data, err := command.Encode(command.Envelope{
		Request: strconv.FormatUint(r.index, 10), Actor: by, At: time.Now(), Command: c,
	})
	if err != nil {
		return nil, err
	}
	//nolint:contextcheck // a command is applied whole, whoever has stopped waiting
	outs, err := r.store.ApplyBatch([]state.Entry{{Index: r.index, Data: data}})
	if err != nil {
		return nil, err
	}
	return outs[0].Result, outs[0].Err
}

func (r *Record) View(context.Context) (*state.View, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.store.View(), r.away
}

func (r *Record) Local() *state.View { return r.store.View() }

// SetAway makes View and Apply answer an error, as if there were no leader.
func (r *Record) SetAway(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away = err
}

// A Service does in one process and at once what takes a cluster.
type Service struct {
	record *Record

	mu sync.Mutex // guards what Set changes

	Exports int           // under way
	Broken  chan struct{} // closing it ends exports with an error
	Files   map[string][]byte
	Images  map[string][]byte
	Up      map[model.NodeID]bool
	Fail    error // what making volumes and exports answers
	Scrubs  []schema.Task
	Leads   model.Leading

	guests machines // the guests' ends of consoles
	desk   *console.Desk
}

// as gives what a command returned its type.
func as[T any](v any, err error) (T, error) {
	t, ok := v.(T)
	if err == nil && !ok {
		err = fmt.Errorf("the record returned %T", v)
	}
	return t, err
}

func (s *Service) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Fail
}

// Set changes or reads the exported fields while the server runs.
func (s *Service) Set(change func(*Service)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func (s *Service) CreateVolume(ctx context.Context, by model.Actor, spec schema.VolumeSpec) (model.Volume, error) {
	return s.makeVolume(ctx, by, spec, model.VolumeDisk)
}

func (s *Service) makeVolume(ctx context.Context, by model.Actor, spec schema.VolumeSpec, use model.VolumeKind) (model.Volume, error) {
	if err := s.failure(); err != nil {
		return model.Volume{}, err
	}
	var members []model.Member
	for _, d := range s.record.Local().Disks()[:spec.Copies] {
		members = append(members, model.Member{Disk: d.ID, State: model.Active})
	}
	return as[model.Volume](s.record.Apply(ctx, by, command.VolumeCreate{
		ID: model.NewID[model.VolumeID](), Name: spec.Name, Use: use, Size: spec.Size, Copies: spec.Copies,
		Columns: []model.Column{{Members: members}, {Members: members}},
	}))
}

func (s *Service) ResizeVolume(ctx context.Context, by model.Actor, id model.VolumeID, size model.Bytes) (model.Volume, error) {
	return as[model.Volume](s.record.Apply(ctx, by, command.VolumeResize{Volume: id, Size: size}))
}

func (s *Service) DeleteVolume(ctx context.Context, by model.Actor, id model.VolumeID) error {
	_, err := s.record.Apply(ctx, by, command.VolumeDelete{Volume: id})
	return err
}

func (s *Service) CreateSnapshot(ctx context.Context, by model.Actor, id model.VolumeID, name string) (model.Snapshot, error) {
	v, err := s.record.Local().Volume(id)
	if err != nil {
		return model.Snapshot{}, err
	}
	cut, err := as[model.Cut](s.record.Apply(ctx, by, command.SnapshotCreate{Name: name, Cuts: []command.SnapshotCut{{
		ID: model.NewID[model.SnapshotID](), Volume: id, Holder: v.Holder, Generation: v.Generation, Revision: v.Revision,
	}}}))
	if err != nil {
		return model.Snapshot{}, err
	}
	return cut.Snapshots[0], nil
}

func (s *Service) DeleteSnapshot(ctx context.Context, by model.Actor, id model.SnapshotID) error {
	_, err := s.record.Apply(ctx, by, command.SnapshotDelete{Snapshot: id})
	return err
}

// RevertSnapshot begins a revert that is done when somebody looks.
func (s *Service) RevertSnapshot(ctx context.Context, by model.Actor, of model.Snapshot, keep string) (model.Volume, error) {
	c := command.SnapshotRevert{Volume: of.Volume, Snapshot: of.ID}
	if keep != "" {
		c.Keep, c.KeepName = model.NewID[model.SnapshotID](), keep
	}
	v, err := as[model.Volume](s.record.Apply(ctx, by, c))
	if err != nil {
		return v, err
	}
	_, err = s.record.Apply(ctx, model.System, command.VolumeTended{
		Volume: v.ID, Generation: v.Generation, Tended: model.Tended{Reverted: v.Revert.Began},
	})
	return v, err
}

func (s *Service) CancelRevert(ctx context.Context, by model.Actor, id model.VolumeID) (model.Volume, error) {
	return as[model.Volume](s.record.Apply(ctx, by, command.SnapshotRevert{Volume: id, Cancel: true}))
}

// CloneVolume has the first node hold the volume for as long as it takes.
func (s *Service) CloneVolume(ctx context.Context, by model.Actor, id model.VolumeID, at model.SnapshotID,
	name string,
) (model.Volume, error) {
	v, err := s.record.Local().Volume(id)
	if err != nil {
		return v, err
	}
	node := s.record.Local().Nodes()[0].ID
	v, err = as[model.Volume](s.record.Apply(ctx, by, command.VolumeAcquire{
		Volume: id, Node: node, Purpose: model.ForMaintenance, Generation: v.Generation, Revision: v.Revision,
	}))
	if err != nil {
		return v, err
	}
	out, err := as[model.Cloned](s.record.Apply(ctx, by, command.VolumeClone{
		ID: model.NewID[model.VolumeID](), Name: name, Use: model.VolumeDisk, Volume: id, Snapshot: at,
		Holder: node, Generation: v.Generation, Revision: v.Revision,
	}))
	_, released := s.record.Apply(ctx, by, command.VolumeRelease{Volume: id, Node: node, Generation: v.Generation})
	return out.Clone, errors.Join(err, released)
}

func (s *Service) AddDisk(ctx context.Context, by model.Actor, node model.NodeID, spec schema.DiskSpec) (model.Disk, error) {
	return as[model.Disk](s.record.Apply(ctx, by, command.DiskAdd{Disk: model.Disk{
		ID: model.NewID[model.DiskID](), Node: node, Path: spec.Path, Size: spec.Size,
	}}))
}

// ScrubDisk makes a task that is done when somebody looks.
func (s *Service) ScrubDisk(_ context.Context, _ model.Actor, d model.Disk) (schema.Task, error) {
	if err := s.failure(); err != nil {
		return schema.Task{}, err
	}
	return s.scrub("disk.scrub", d.ID.String(), d.Size), nil
}

// ScrubVolume makes one too.
func (s *Service) ScrubVolume(_ context.Context, _ model.Actor, v model.Volume) (schema.Task, error) {
	if err := s.failure(); err != nil {
		return schema.Task{}, err
	}
	return s.scrub("volume.scrub", v.Name, v.Size), nil
}

func (s *Service) scrub(kind, object string, size model.Bytes) schema.Task {
	s.mu.Lock()
	defer s.mu.Unlock()
	task := schema.Task{
		ID: 1<<20 + model.TaskID(len(s.Scrubs)), Kind: kind, Object: object, State: schema.TaskRunning,
		Total: size, Started: time.Unix(1_700_000_000, 0).UTC(),
	}
	done := task
	done.State, done.Done, done.Ended = schema.TaskDone, done.Total, task.Started.Add(time.Minute)
	s.Scrubs = append(s.Scrubs, done)
	return task
}

func (s *Service) CreateVMSnapshots(ctx context.Context, by model.Actor, id model.VMID, name string) ([]model.Snapshot, error) {
	vm, err := s.record.Local().VM(id)
	if err != nil {
		return nil, err
	}
	c := command.SnapshotCreate{Name: name}
	for _, d := range vm.Disks {
		v, err := s.record.Local().Volume(d.Volume)
		if err != nil {
			return nil, err
		}
		c.Cuts = append(c.Cuts, command.SnapshotCut{
			ID: model.NewID[model.SnapshotID](), Volume: v.ID, Holder: v.Holder, Generation: v.Generation, Revision: v.Revision,
		})
	}
	cut, err := as[model.Cut](s.record.Apply(ctx, by, c))
	return cut.Snapshots, err
}

// DiffSnapshots says that the second and third page were changed, and the rest of a
// volume of whole pages was not.
func (s *Service) DiffSnapshots(_ context.Context, _, _ model.Snapshot, size model.Bytes,
	each func(done model.Bytes, ranges []schema.ByteRange) error,
) error {
	if err := s.failure(); err != nil {
		return err
	}
	if err := each(4*model.PageSize, []schema.ByteRange{{Offset: model.PageSize, Length: 2 * model.PageSize}}); err != nil {
		return err
	}
	return each(size, nil)
}

func (s *Service) Export(ctx context.Context, _ model.Actor, e api.Export, ready func(string) error) error {
	if err := s.failure(); err != nil {
		return err
	}
	s.mu.Lock()
	s.Exports++
	broken := s.Broken
	s.mu.Unlock()
	defer s.Set(func(s *Service) { s.Exports-- })
	if err := ready("nbd+unix:///?socket=" + e.Path); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case <-broken:
		return model.Errorf(model.Fenced, "another node took the volume")
	}
}

func (s *Service) ImportImage(ctx context.Context, by model.Actor, i api.Import, body io.Reader,
	progress func(schema.ImportEvent),
) (model.Volume, error) {
	progress(schema.ImportEvent{Phase: "upload"})
	data, err := io.ReadAll(body)
	if err != nil {
		return model.Volume{}, err
	}
	progress(schema.ImportEvent{Phase: "convert", Done: 1, Total: 2})
	if !bytes.HasPrefix(data, []byte("image")) {
		return model.Volume{}, model.Errorf(model.Invalid, "the file is not a %s image", i.Format)
	}
	s.Set(func(s *Service) { s.Images[i.Name] = data })
	return s.makeVolume(ctx, by, schema.VolumeSpec{Name: i.Name, Size: 1 << 30, Copies: i.Copies}, model.VolumeImage)
}

func (s *Service) ImportFile(ctx context.Context, by model.Actor, i api.Import, path string,
	progress func(schema.ImportEvent),
) (model.Volume, error) {
	f, err := os.Open(path) //nolint:gosec // of the rig
	if err != nil {
		return model.Volume{}, err
	}
	defer func() { _ = f.Close() }() // only read
	return s.ImportImage(ctx, by, i, f, progress)
}

func (s *Service) PutFile(_ context.Context, _ model.Actor, ref model.FileRef, body io.Reader) (model.FileRef, error) {
	data, err := io.ReadAll(body)
	if err != nil {
		return ref, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != ref.SHA256 {
		return ref, model.Errorf(model.Invalid, "the file has another digest")
	}
	s.Set(func(s *Service) { s.Files[ref.SHA256] = data })
	ref.Size = model.Bytes(len(data))
	return ref, nil
}

func (s *Service) CreateVM(ctx context.Context, by model.Actor, spec api.VMSpec) (model.VM, error) {
	var disks []model.VMDisk
	for i, d := range spec.Disks {
		if d.Volume == 0 {
			size := max(d.Size, 1<<30)
			v, err := s.CreateVolume(ctx, by, schema.VolumeSpec{Name: spec.Name + "-" + strconv.Itoa(i), Size: size, Copies: 2})
			if err != nil {
				return model.VM{}, err
			}
			d.Volume = v.ID
		}
		disks = append(disks, model.VMDisk{Volume: d.Volume, Bus: d.Bus})
	}
	if spec.Firmware.UEFI() && spec.NVRAM == 0 {
		v, err := s.makeVolume(ctx, by, schema.VolumeSpec{Name: spec.Name + "-nvram", Size: model.NVRAMSize, Copies: 2}, model.VolumeNVRAM)
		if err != nil {
			return model.VM{}, err
		}
		spec.NVRAM = v.ID
	}
	return as[model.VM](s.record.Apply(ctx, by, command.VMCreate{
		Firmware: spec.Firmware, NVRAM: spec.NVRAM,
		ID: model.NewID[model.VMID](), Name: spec.Name, CPUs: spec.CPUs, Memory: spec.Memory, Disks: disks, Boot: spec.Boot, NICs: spec.NICs, Tags: spec.Tags, Description: spec.Description,
		CDROMs: spec.CDROMs, BootOrder: spec.BootOrder, Seed: spec.Seed,
	}))
}

func (s *Service) ChangeVM(ctx context.Context, by model.Actor, c command.VMUpdate, add []api.DiskFrom) (model.VM, error) {
	for i, d := range add {
		if d.Volume == 0 {
			v, err := s.CreateVolume(ctx, by, schema.VolumeSpec{Name: c.VM.String() + "-added" + strconv.Itoa(i), Size: max(d.Size, 1<<30), Copies: 2})
			if err != nil {
				return model.VM{}, err
			}
			d.Volume = v.ID
		}
		c.AddDisks = append(c.AddDisks, d.Volume)
	}
	if c.Firmware != nil && c.Firmware.UEFI() { // an empty one
		v, err := s.makeVolume(ctx, by, schema.VolumeSpec{Name: c.VM.String() + "-nvram", Size: model.NVRAMSize, Copies: 2}, model.VolumeNVRAM)
		if err != nil {
			return model.VM{}, err
		}
		c.NVRAM = v.ID
	}
	if vm, err := s.record.Local().VM(c.VM); err == nil && len(c.RemoveDisks) > 0 {
		c.Released = vm.Node // a guest that gives everything back at once
	}
	return as[model.VM](s.record.Apply(ctx, by, c))
}

func (s *Service) PowerVM(ctx context.Context, by model.Actor, id model.VMID, do schema.PowerAction, node model.NodeID) (model.VM, error) {
	power := command.VMPower{VM: id, Power: model.PowerOff}
	if do == schema.PowerStart {
		power.Power, power.Node = model.PowerOn, node
		if node == 0 {
			power.Node = Self
		}
	}
	return as[model.VM](s.record.Apply(ctx, by, power))
}

// MigrateVM moves a machine by the record alone, at once.
func (s *Service) MigrateVM(ctx context.Context, by model.Actor, id model.VMID, to model.NodeID, _ time.Duration) (schema.Task, error) {
	vm, err := s.record.Local().VM(id)
	if err != nil {
		return schema.Task{}, err
	}
	task := schema.Task{ID: model.NewID[model.TaskID](), Kind: "vm.migrate", Object: vm.Name, State: schema.TaskDone}
	for _, cmd := range []command.Command{
		command.VMReport{VM: id, Node: vm.Node, State: model.VMRunning},
		command.VMMigrate{VM: id, Task: task.ID, From: vm.Node, To: to},
		command.VMMigrateEnd{VM: id, Task: task.ID, From: vm.Node, Moved: true},
	} {
		if _, err := s.record.Apply(ctx, by, cmd); err != nil {
			return schema.Task{}, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Scrubs = append(s.Scrubs, task)
	return task, nil
}

func (s *Service) DeleteVM(ctx context.Context, by model.Actor, id model.VMID, keepDisks bool) error {
	_, err := s.record.Apply(ctx, by, command.VMDelete{VM: id, Disks: !keepDisks})
	return err
}

func (s *Service) DrainNode(ctx context.Context, by model.Actor, id model.NodeID, cancel bool,
) (model.Node, map[model.VMID]string, error) {
	out, err := s.record.Apply(ctx, by, command.NodeDrain{Node: id, Cancel: cancel})
	n, _ := out.(model.Node)
	return n, nil, err
}

func (s *Service) RemoveNode(ctx context.Context, by model.Actor, id model.NodeID) error {
	_, err := s.record.Apply(ctx, by, command.NodeRemove{Node: id})
	return err
}

func (s *Service) CreateToken(ctx context.Context, by model.Actor, spec schema.TokenSpec) (schema.NewToken, error) {
	t := model.JoinToken{
		ID: "abcdefgh", Name: spec.Name, Uses: spec.Uses, SecretHash: hex.EncodeToString(make([]byte, 32)),
		Expires: time.Now().Add(time.Duration(spec.TTL) * time.Second),
	}
	_, err := s.record.Apply(ctx, by, command.TokenCreate{Token: t})
	return schema.NewToken{ID: t.ID, Token: "dry1-x-abcdefgh-x-x", Expires: t.Expires, Uses: t.Uses}, err
}

func (s *Service) Join(context.Context, string, schema.JoinRequest) (schema.JoinAnswer, error) {
	return schema.JoinAnswer{}, model.Errorf(model.Denied, "the token is not good")
}

func (s *Service) RotateKey(ctx context.Context, by model.Actor) (schema.GossipKey, error) {
	key := command.Keep(model.NewSecret(base64.StdEncoding.EncodeToString(make([]byte, 32))))
	_, err := s.record.Apply(ctx, by, command.KeyRotate{Key: key})
	return schema.GossipKey{Phase: schema.KeyAdding, Waiting: []string{"n2"}}, err
}

func (s *Service) GossipKey(context.Context) (schema.GossipKey, error) {
	return schema.GossipKey{Phase: schema.KeySettled}, nil
}

func (s *Service) RotateCA(ctx context.Context, by model.Actor) (schema.CA, error) {
	_, err := s.record.Apply(ctx, by, command.CARotate{
		CA: "pem", CAKey: command.Keep(model.NewSecret("sealed")), Heritage: "pem",
	})
	return schema.CA{Fingerprint: "new", Former: "old", Waiting: []string{"n2"}}, err
}

func (s *Service) CA(context.Context) (schema.CA, error) { return schema.CA{Fingerprint: "new"}, nil }

func (s *Service) FinishCA(ctx context.Context, by model.Actor) (schema.CA, error) {
	step := command.TrustStep{Epoch: 1}
	for _, n := range s.record.Local().Nodes() {
		step.Except = append(step.Except, n.ID)
	}
	_, err := s.record.Apply(ctx, by, step)
	return schema.CA{Fingerprint: "new"}, err
}

func (s *Service) Nodes(context.Context) map[model.NodeID]api.NodeReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[model.NodeID]api.NodeReport{}
	for id, up := range s.Up {
		out[id] = api.NodeReport{
			Up: up, Since: time.Unix(1_700_000_000, 0).UTC(), Version: "1.2.3", CPUs: 4, Memory: 8 << 30,
			Hypervisor: true, Accel: "tcg",
		}
	}
	return out
}

// Leading is what the test set.
func (s *Service) Leading(context.Context) model.Leading {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Leads
}

func (s *Service) Disks(context.Context) map[model.DiskID]model.DiskUsage {
	return map[model.DiskID]model.DiskUsage{
		11: {
			Disk: 11, Size: 8 << 30, Used: 1 << 30, ChecksumErrors: 3, Repaired: 2,
			Scrubbed: time.Unix(1_700_000_000, 0).UTC(),
			Scrub:    model.Scrub{Began: time.Unix(1_700_600_000, 0).UTC(), Done: 1 << 20, Total: 1 << 30, Running: true},
			Map:      model.MapCache{Memory: 20 << 20, Limit: 32 << 20, Hits: 99, Misses: 1},
			Hardware: model.Hardware{Model: "EXAMPLE HDD-4000", Serial: "E4K00017", Health: model.HealthFailing},
		},
		12: {Disk: 12, Size: 8 << 30, Used: 2 << 30},
	}
}

func (s *Service) Volumes(context.Context) map[model.VolumeID]api.VolumeReport { return nil }

func (s *Service) Leader() (model.NodeID, bool) {
	s.record.mu.Lock()
	defer s.record.mu.Unlock()
	if s.record.away != nil {
		return 0, false
	}
	return Self, true
}

func (s *Service) Tasks(context.Context) ([]schema.Task, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.Scrubs), nil
}

// Spare is of two nodes, of which one runs more than the other could take.
func (s *Service) Spare(context.Context) schema.Spare {
	return schema.Spare{
		Memory: 30 << 30, MemoryPromised: 20 << 30, CPUs: 16, CPUsPromised: 12, LossOf: Other, LossVMs: 1, LossMemory: 4 << 30,
	}
}

func (s *Service) CancelTask(context.Context, model.Actor, model.TaskID) error {
	return model.Errorf(model.NotFound, "there is no such task")
}

// numbers counts one disk that has nothing to do.
type numbers struct{}

func (numbers) CountDisks() []metrics.DiskCount   { return []metrics.DiskCount{{ID: 11, Size: 8 << 30}} }
func (numbers) CountGuests() []metrics.GuestCount { return nil }
func (numbers) Others() []model.NodeID            { return nil }
func (numbers) Members() []model.NodeID           { return []model.NodeID{Other} }
func (numbers) Past(context.Context, model.NodeID, metrics.PastAsk) ([]metrics.Point, error) {
	return nil, errors.New("there are no others")
}

func (numbers) Samples(context.Context, model.NodeID, int64) ([]metrics.Sample, error) {
	return nil, errors.New("there are no others")
}

// A Rig is a server that listens on a UNIX socket and on TLS until the test ends.
type Rig struct {
	*api.Server

	Record  *Record
	Service *Service
	Log     *Log
	Socket  string
	Web     *httptest.Server
	Users   map[model.Role]model.User
}

// A Log is what the server logged, at every level.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// quickHash keeps tests that are not about passwords quick.
var quickHash = auth.Params{Memory: 64, Time: 1, Threads: 1}

// New starts a Rig.
func New(t *testing.T) *Rig {
	t.Helper()
	dir := t.TempDir()
	store, err := state.Open(t.Context(), filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	r := &Rig{Record: &Record{store: store}, Log: &Log{}, Socket: filepath.Join(dir, "api.sock")}
	r.Service = &Service{
		record: r.Record, Files: map[string][]byte{}, Images: map[string][]byte{},
		guests: make(machines, 16), Broken: make(chan struct{}), Up: map[model.NodeID]bool{Self: true, Other: true},
	}
	r.Service.desk = console.New(r.Service.guests, slog.New(slog.DiscardHandler))
	hasher := auth.NewHasher(quickHash)
	r.fill(t, hasher)
	numbers := metrics.New(metrics.Config{
		Self: Self, Source: numbers{}, Peers: numbers{}, Log: slog.New(slog.DiscardHandler), Dir: filepath.Join(dir, "history"),
		Known: func(context.Context) (func(model.VMID) bool, error) {
			return func(id model.VMID) bool { _, err := r.Record.Local().VM(id); return err == nil }, nil
		},
	})
	uploads := spool.New(filepath.Join(dir, "uploads"), slog.New(slog.DiscardHandler))
	downloads := shelf.New(filepath.Join(dir, "exports"), slog.New(slog.DiscardHandler))
	r.Server, err = api.New(api.Config{
		Self: Self, Version: "1.2.3", Record: r.Record, Service: r.Service, Metrics: numbers, Hasher: hasher, Uploads: uploads, Shelf: downloads, Fetch: fetch.New(func() []netip.Prefix { return nil }),
		Log:    slog.New(slog.NewTextHandler(r.Log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Page:   http.HandlerFunc(page),
		Socket: r.Socket,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Web = httptest.NewUnstartedServer(r.Handler())
	r.Web.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	r.Web.StartTLS()
	t.Cleanup(r.Web.Close)
	r.run(t, numbers, uploads, downloads)
	return r
}

func page(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html")
	_, _ = w.Write([]byte("page")) // the test reads it
}

// fill makes the cluster.
func (r *Rig) fill(t *testing.T, hasher *auth.Hasher) {
	t.Helper()
	hash, err := hasher.Hash(t.Context(), model.NewSecret(Password))
	if err != nil {
		t.Fatal(err)
	}
	keep := command.Keep(hash)
	node := func(id model.NodeID, name string) model.Node {
		return model.Node{ID: id, Name: name, Address: "127.0.0.1", API: "https://127.0.0.1:8443"}
	}
	owner := command.UserCreate{ID: model.NewID[model.UserID](), Name: "owner", Role: model.Owner, PasswordHash: keep}
	r.Users = map[model.Role]model.User{model.Owner: {ID: owner.ID, Name: owner.Name, Role: owner.Role}}
	r.Apply(t, command.ClusterCreate{
		ID: 42, Name: "demo", CA: "ca", CAKey: command.Keep(model.NewSecret("k")),
		GossipKey: command.Keep(model.NewSecret("g")), Node: node(Self, "n1"), Owner: owner,
	})
	for _, role := range []model.Role{model.Viewer, model.Operator, model.Admin} {
		u := command.UserCreate{ID: model.NewID[model.UserID](), Name: string(role), Role: role, PasswordHash: keep}
		r.Apply(t, u)
		r.Users[role] = model.User{ID: u.ID, Name: u.Name, Role: u.Role}
	}
	digest := hex.EncodeToString(make([]byte, sha256.Size))
	r.Apply(t, command.TokenCreate{Token: model.JoinToken{
		ID: "aaaaaaaa", SecretHash: digest, Uses: 1, Expires: time.Now().Add(time.Hour),
	}})
	r.Apply(t, command.TokenRedeem{Token: "aaaaaaaa", SecretHash: digest, KeyHash: digest, Node: node(Other, "n2")})
	r.Apply(t, command.DiskAdd{Disk: model.Disk{ID: 11, Node: Self, Path: "/d/1", Size: 8 << 30}})
	r.Apply(t, command.DiskAdd{Disk: model.Disk{ID: 12, Node: Other, Path: "/d/2", Size: 8 << 30}})
}

// Apply changes the record in the name of the cluster itself.
func (r *Rig) Apply(t *testing.T, c command.Command) {
	t.Helper()
	if _, err := r.Record.Apply(t.Context(), model.System, c); err != nil {
		t.Fatalf("apply %s: %v", c.Kind(), err)
	}
}

func (r *Rig) run(t *testing.T, numbers *metrics.Metrics, uploads *spool.Spool, downloads *shelf.Shelf) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var parts sync.WaitGroup
	parts.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	parts.Go(func() {
		if err := numbers.Run(ctx); err != nil {
			t.Errorf("metrics: %v", err)
		}
	})
	parts.Go(func() { uploads.Run(ctx) })
	parts.Go(func() { downloads.Run(ctx) })
	t.Cleanup(func() { cancel(); parts.Wait() })
	WaitFor(t, "the socket", func() bool {
		_, err := r.Root().Meta(t.Context())
		return err == nil
	})
	WaitFor(t, "the uploads", func() bool {
		_, err := uploads.List(model.System)
		return err == nil
	})
}

// Root is a client of the socket. The test has to run as root to be the owner.
func (r *Rig) Root() *client.Client { return client.Unix(r.Socket) }

// Session makes a session for a role without a log-in.
func (r *Rig) Session(t *testing.T, role model.Role) model.Secret {
	t.Helper()
	token, digest := auth.NewToken()
	r.Apply(t, command.SessionCreate{
		TokenHash: digest, User: r.Users[role].ID, Expires: time.Now().Add(time.Hour), Address: "192.0.2.1",
	})
	return token
}

// As is a client over TLS with a session of a role.
func (r *Rig) As(t *testing.T, role model.Role) *client.Client {
	t.Helper()
	return r.With(t, r.Session(t, role))
}

// With is a client over TLS with a token, which may be empty.
func (r *Rig) With(t *testing.T, token model.Secret) *client.Client {
	t.Helper()
	c, err := client.TLS(r.Address(), r.CA(), token)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Address is host:port of the TLS listener.
func (r *Rig) Address() string { return r.Web.Listener.Addr().String() }

// CA is the certificate that clients of the TLS listener have to trust, PEM.
func (r *Rig) CA() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Web.Certificate().Raw})
}

// WaitFor polls until something is so.
func WaitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("waited 10 s for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// CodeIs fails the test unless err has a code.
func CodeIs(t *testing.T, what string, err error, want model.Code) {
	t.Helper()
	if got := model.CodeOf(err); got != want {
		t.Errorf("%s: %v, want code %q", what, err, want)
	}
}
