package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/auth"
	"drystone.example/drystone/backend/client"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/metrics"
	"drystone.example/drystone/backend/model"
)

// quickHash keeps the tests that are not about passwords quick.
var quickHash = auth.Params{Memory: 64, Time: 1, Threads: 1}

const (
	selfNode  = model.NodeID(1)
	otherNode = model.NodeID(2)
	password  = "a wall without mortar"
)

// record is the real record of a single node: the real state, without raft.
type record struct {
	store *state.Store

	mu    sync.Mutex
	index uint64
	away  error // what View and Apply answer, as if there were no leader
}

func (r *record) Apply(_ context.Context, by model.Actor, c command.Command) (any, error) {
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
	outs, err := r.store.ApplyBatch([]state.Entry{{Index: r.index, Data: data}})
	if err != nil {
		return nil, err
	}
	return outs[0].Result, outs[0].Err
}

func (r *record) View(context.Context) (*state.View, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.store.View(), r.away
}

func (r *record) Local() *state.View { return r.store.View() }

func (r *record) setAway(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away = err
}

// service does in one process and at once what takes a cluster.
type service struct {
	record *record

	mu       sync.Mutex
	exports  int           // under way
	exported chan struct{} // when not nil, closing it ends exports with an error
	files    map[string][]byte
	images   map[string][]byte
	console  net.Conn // the guest's end of the next console
	up       map[model.NodeID]bool
	fail     error // what the next mutation answers
}

func (s *service) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fail
}

func (s *service) set(change func(*service)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func (s *service) CreateVolume(ctx context.Context, by model.Actor, spec schema.VolumeSpec) (model.Volume, error) {
	return s.makeVolume(ctx, by, spec, model.VolumeDisk)
}

func (s *service) makeVolume(ctx context.Context, by model.Actor, spec schema.VolumeSpec, use model.VolumeKind) (model.Volume, error) {
	if err := s.failure(); err != nil {
		return model.Volume{}, err
	}
	var members []model.Member
	for _, d := range s.record.Local().Disks()[:spec.Copies] {
		members = append(members, model.Member{Disk: d.ID, State: model.Active})
	}
	v, err := s.record.Apply(ctx, by, command.VolumeCreate{
		ID: model.NewID[model.VolumeID](), Name: spec.Name, Use: use, Size: spec.Size, Copies: spec.Copies,
		Columns: []model.Column{{Members: members}, {Members: members}},
	})
	if err != nil {
		return model.Volume{}, err
	}
	return v.(model.Volume), nil
}

func (s *service) ResizeVolume(ctx context.Context, by model.Actor, id model.VolumeID, size model.Bytes) (model.Volume, error) {
	v, err := s.record.Apply(ctx, by, command.VolumeResize{Volume: id, Size: size})
	if err != nil {
		return model.Volume{}, err
	}
	return v.(model.Volume), nil
}

func (s *service) DeleteVolume(ctx context.Context, by model.Actor, id model.VolumeID) error {
	_, err := s.record.Apply(ctx, by, command.VolumeDelete{Volume: id})
	return err
}

func (s *service) AddDisk(ctx context.Context, by model.Actor, node model.NodeID, spec schema.DiskSpec) (model.Disk, error) {
	d, err := s.record.Apply(ctx, by, command.DiskAdd{Disk: model.Disk{
		ID: model.NewID[model.DiskID](), Node: node, Path: spec.Path, Size: spec.Size,
	}})
	if err != nil {
		return model.Disk{}, err
	}
	return d.(model.Disk), nil
}

func (s *service) Export(ctx context.Context, _ model.Actor, e Export, ready func(string) error) error {
	if err := s.failure(); err != nil {
		return err
	}
	s.mu.Lock()
	s.exports++
	broken := s.exported
	s.mu.Unlock()
	defer s.set(func(s *service) { s.exports-- })
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

func (s *service) ImportImage(ctx context.Context, by model.Actor, i Import, body io.Reader,
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
	s.set(func(s *service) { s.images[i.Name] = data })
	return s.makeVolume(ctx, by, schema.VolumeSpec{Name: i.Name, Size: 1 << 30, Copies: i.Copies}, model.VolumeImage)
}

func (s *service) PutFile(_ context.Context, _ model.Actor, ref model.FileRef, body io.Reader) (model.FileRef, error) {
	data, err := io.ReadAll(body)
	if err != nil {
		return ref, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != ref.SHA256 {
		return ref, model.Errorf(model.Invalid, "the file has another digest")
	}
	s.set(func(s *service) { s.files[ref.SHA256] = data })
	ref.Size = model.Bytes(len(data))
	return ref, nil
}

func (s *service) CreateVM(ctx context.Context, by model.Actor, spec VMSpec) (model.VM, error) {
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
		disks = append(disks, model.VMDisk{Volume: d.Volume})
	}
	vm, err := s.record.Apply(ctx, by, command.VMCreate{
		ID: model.NewID[model.VMID](), Name: spec.Name, CPUs: spec.CPUs, Memory: spec.Memory, Disks: disks, Boot: spec.Boot,
	})
	if err != nil {
		return model.VM{}, err
	}
	return vm.(model.VM), nil
}

func (s *service) PowerVM(ctx context.Context, by model.Actor, id model.VMID, do schema.PowerAction, node model.NodeID) (model.VM, error) {
	power := command.VMPower{VM: id, Power: model.PowerOff}
	if do == schema.PowerStart {
		power.Power, power.Node = model.PowerOn, node
		if node == 0 {
			power.Node = selfNode
		}
	}
	vm, err := s.record.Apply(ctx, by, power)
	if err != nil {
		return model.VM{}, err
	}
	return vm.(model.VM), nil
}

func (s *service) DeleteVM(ctx context.Context, by model.Actor, id model.VMID, keepDisks bool) error {
	_, err := s.record.Apply(ctx, by, command.VMDelete{VM: id, Disks: !keepDisks})
	return err
}

func (s *service) SerialConsole(context.Context, model.VMID) (io.ReadWriteCloser, error) {
	ours, guest := net.Pipe()
	s.set(func(s *service) { s.console = guest })
	return ours, nil
}

func (s *service) RemoveNode(ctx context.Context, by model.Actor, id model.NodeID) error {
	_, err := s.record.Apply(ctx, by, command.NodeRemove{Node: id})
	return err
}

func (s *service) CreateToken(ctx context.Context, by model.Actor, spec schema.TokenSpec) (schema.NewToken, error) {
	t := model.JoinToken{
		ID: "abcdefgh", Name: spec.Name, Uses: spec.Uses, SecretHash: hex.EncodeToString(make([]byte, 32)),
		Expires: time.Now().Add(time.Duration(spec.TTL) * time.Second),
	}
	_, err := s.record.Apply(ctx, by, command.TokenCreate{Token: t})
	return schema.NewToken{ID: t.ID, Token: "dry1-x-abcdefgh-x-x", Expires: t.Expires, Uses: t.Uses}, err
}

func (s *service) Join(context.Context, string, schema.JoinRequest) (schema.JoinAnswer, error) {
	return schema.JoinAnswer{}, model.Errorf(model.Denied, "the token is not good")
}

func (s *service) Nodes(context.Context) map[model.NodeID]NodeReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[model.NodeID]NodeReport{}
	for id, up := range s.up {
		out[id] = NodeReport{
			Up: up, Since: time.Unix(1_700_000_000, 0).UTC(), Version: "1.2.3", CPUs: 4, Memory: 8 << 30,
			Hypervisor: true, Accel: "tcg",
		}
	}
	return out
}

func (s *service) Disks(context.Context) map[model.DiskID]model.DiskUsage {
	return map[model.DiskID]model.DiskUsage{
		11: {Disk: 11, Size: 8 << 30, Used: 1 << 30, ChecksumErrors: 3, Repaired: 2},
		12: {Disk: 12, Size: 8 << 30, Used: 2 << 30},
	}
}

func (s *service) Volumes(context.Context) map[model.VolumeID]VolumeReport { return nil }

func (s *service) Leader() (model.NodeID, bool) {
	s.record.mu.Lock()
	defer s.record.mu.Unlock()
	if s.record.away != nil {
		return 0, false
	}
	return selfNode, true
}

func (s *service) Tasks(context.Context) ([]schema.Task, error) { return nil, nil }

func (s *service) CancelTask(context.Context, model.Actor, model.TaskID) error {
	return model.Errorf(model.NotFound, "there is no such task")
}

// no counts: the metrics have tests of their own.
type noCounts struct{}

func (noCounts) CountDisks() []metrics.DiskCount   { return []metrics.DiskCount{{ID: 11, Size: 8 << 30}} }
func (noCounts) CountGuests() []metrics.GuestCount { return nil }
func (noCounts) Others() []model.NodeID            { return nil }
func (noCounts) Samples(context.Context, model.NodeID, int64) ([]metrics.Sample, error) {
	return nil, errors.New("there are no others")
}

// A rig is a server with a real record, listening on a socket and on TLS.
type rig struct {
	*Server

	record  *record
	service *service
	log     *lockedBuffer
	socket  string
	web     *httptest.Server
	users   map[model.Role]model.User
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newRig makes a cluster of two nodes with a disk each and a user of each role.
func newRig(t *testing.T) *rig {
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
	r := &rig{record: &record{store: store}, log: &lockedBuffer{}, socket: filepath.Join(dir, "api.sock")}
	r.service = &service{
		record: r.record, files: map[string][]byte{}, images: map[string][]byte{},
		up: map[model.NodeID]bool{selfNode: true, otherNode: true},
	}
	hasher := auth.NewHasher(quickHash)
	r.fill(t, hasher)
	numbers := metrics.New(metrics.Config{Self: selfNode, Source: noCounts{}, Peers: noCounts{}, Log: slog.New(slog.DiscardHandler)})
	r.Server, err = New(Config{
		Self: selfNode, Version: "1.2.3", Record: r.record, Service: r.service, Metrics: numbers, Hasher: hasher,
		Log:    slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Page:   http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "page") }),
		Socket: r.socket,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.web = httptest.NewTLSServer(r.Handler())
	t.Cleanup(r.web.Close)
	r.run(t, numbers)
	return r
}

func (r *rig) fill(t *testing.T, hasher *auth.Hasher) {
	t.Helper()
	hash, err := hasher.Hash(t.Context(), model.NewSecret(password))
	if err != nil {
		t.Fatal(err)
	}
	r.users = map[model.Role]model.User{}
	owner := command.UserCreate{ID: model.NewID[model.UserID](), Name: "owner", Role: model.Owner, PasswordHash: command.Keep(hash)}
	node := func(id model.NodeID, name string) model.Node {
		return model.Node{ID: id, Name: name, Address: "127.0.0.1", API: "https://127.0.0.1:8443"}
	}
	r.apply(t, command.ClusterCreate{
		ID: 42, Name: "demo", CA: "ca", CAKey: command.Keep(model.NewSecret("k")), GossipKey: command.Keep(model.NewSecret("g")),
		Node: node(selfNode, "n1"), Owner: owner,
	})
	r.users[model.Owner] = model.User{ID: owner.ID, Name: owner.Name, Role: owner.Role}
	for _, role := range []model.Role{model.Viewer, model.Operator, model.Admin} {
		u := command.UserCreate{ID: model.NewID[model.UserID](), Name: string(role), Role: role, PasswordHash: command.Keep(hash)}
		r.apply(t, u)
		r.users[role] = model.User{ID: u.ID, Name: u.Name, Role: u.Role}
	}
	r.apply(t, command.TokenCreate{Token: model.JoinToken{
		ID: "aaaaaaaa", SecretHash: hex.EncodeToString(make([]byte, 32)), Uses: 1, Expires: time.Now().Add(time.Hour),
	}})
	r.apply(t, command.TokenRedeem{
		Token: "aaaaaaaa", SecretHash: hex.EncodeToString(make([]byte, 32)),
		KeyHash: hex.EncodeToString(make([]byte, 32)), Node: node(otherNode, "n2"),
	})
	r.apply(t, command.DiskAdd{Disk: model.Disk{ID: 11, Node: selfNode, Path: "/d/1", Size: 8 << 30}})
	r.apply(t, command.DiskAdd{Disk: model.Disk{ID: 12, Node: otherNode, Path: "/d/2", Size: 8 << 30}})
}

func (r *rig) apply(t *testing.T, c command.Command) {
	t.Helper()
	if _, err := r.record.Apply(t.Context(), model.System, c); err != nil {
		t.Fatalf("apply %s: %v", c.Kind(), err)
	}
}

func (r *rig) run(t *testing.T, numbers *metrics.Metrics) {
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
	t.Cleanup(func() { cancel(); parts.Wait() })
	waitFor(t, "the socket", func() bool {
		_, err := r.root().Meta(t.Context())
		return err == nil
	})
}

// waitFor polls until something is so.
func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("waited 10 s for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// root is a client of the socket, where the test must run as root.
func (r *rig) root() *client.Client { return client.Unix(r.socket) }

// session makes one for a role without the log-in.
func (r *rig) session(t *testing.T, role model.Role) model.Secret {
	t.Helper()
	token, digest := auth.NewToken()
	r.apply(t, command.SessionCreate{
		TokenHash: digest, User: r.users[role].ID, Expires: time.Now().Add(time.Hour), Address: "192.0.2.1",
	})
	return token
}

// as is a client over TLS with a session of a role.
func (r *rig) as(t *testing.T, role model.Role) *client.Client {
	t.Helper()
	return r.with(t, r.session(t, role))
}

func (r *rig) with(t *testing.T, token model.Secret) *client.Client {
	t.Helper()
	address := r.web.Listener.Addr().String()
	tlsConfig := r.web.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	tlsConfig.NextProtos = nil
	c := client.WithTLS(address, tlsConfig, token)
	t.Cleanup(c.Close)
	return c
}

// codeIs fails the test unless err has a code.
func codeIs(t *testing.T, what string, err error, want model.Code) {
	t.Helper()
	if got := model.CodeOf(err); got != want {
		t.Errorf("%s: %v, want code %q", what, err, want)
	}
}
