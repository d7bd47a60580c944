// Package endurance keeps a cluster busy for as long as it is told to, with all that
// an operator may do while data is written and verified, and with nodes that die. It
// needs root, fio and the binaries in bin/ (make build); make endurance runs it for
// half an hour.
package endurance

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"drystone.example/drystone/tests/internal/devcluster"
)

var (
	minutes = flag.Float64("endurance.minutes", 1, "how long it lasts")
	seed    = flag.Uint64("endurance.seed", 1, "the order of what is done is made from it")
)

// A run is the cluster, what is done to it and what was done.
type run struct {
	*devcluster.Cluster
	t   *testing.T
	rng *rand.Rand

	began, end time.Time

	loud time.Time // of the last line

	kept []string // snapshots of the volume that lives
	sums map[string][sha256.Size]byte

	mu   sync.Mutex // guards done
	done map[string]int
}

// steps are what is done to a volume under load, in any order. Each leaves it whole.
// What an operator learns to do is added here.
var steps = []struct {
	name string
	do   func(r *run, volume string, number int)
}{
	{"kill", (*run).kill},
	{"snapshot", (*run).snapshot},
	{"read of a snapshot", (*run).reread},
	{"clone", (*run).clone},
	{"deletion of a snapshot", (*run).forget},
	{"scrub", (*run).scrub},
}

// stepsOfLife is how many a volume sees before it is deleted, with all that was made
// of it; so the disks do not fill up.
const stepsOfLife = 12

// fio writes and verifies a volume, again and again, while nodes die and come back,
// snapshots are made, read again and deleted, clones are made of them, and disks are
// scrubbed; it is reverted to one of them, and then there is another volume. There
// is no error, each time all copies are whole again, and what was deleted takes no space.
func TestEndurance(t *testing.T) {
	t.Logf("seed %d", *seed)
	r := &run{
		Cluster: devcluster.Up(t, "127.0.231", "--disks", "2", "--disk-size", "4G", "--storage-only"), t: t,
		rng: rand.New(rand.NewPCG(*seed, 0)), done: map[string]int{},
	}
	r.began = time.Now()
	r.loud, r.end = r.began, r.began.Add(time.Duration(*minutes*float64(time.Minute)))
	for life := 0; life == 0 || time.Now().Before(r.end); life++ {
		r.live(life)
		r.count("volume", 1)
	}
	r.say()
}

// live is the life of one volume.
func (r *run) live(life int) {
	r.t.Helper()
	volume := fmt.Sprintf("endures%d", life)
	r.kept, r.sums = nil, map[string][sha256.Size]byte{}
	r.Must(r.t, "volume", "create", volume, "512M")
	e := r.Export(r.t, "nbd", volume, r.Nodes[life%len(r.Nodes)].Name)
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- r.load(e.URI, stop) }()
	for number := range stepsOfLife {
		step := steps[r.rng.IntN(len(steps))]
		if number < len(steps) { // each at least once
			step = steps[number]
		}
		step.do(r, volume, number)
		r.count(step.name, 1)
		r.await(volume+" is whole after a "+step.name, func() bool { return r.whole(volume) })
		if len(ended) > 0 || time.Now().After(r.end) && number >= len(steps) {
			break
		}
		time.Sleep(time.Duration(1+r.rng.IntN(4)) * time.Second)
	}
	close(stop)
	if err := <-ended; err != nil {
		r.t.Fatal(err)
	}
	e.Stop()
	r.revert(volume)
	r.await(volume+" can be deleted", func() bool { return r.Run("volume", "delete", volume, "--yes").Status == 0 })
	r.await("nothing of it takes space", r.empty)
}

// kill lets a node die that does not serve the volume, and start again.
func (r *run) kill(volume string, _ int) {
	victim := r.Nodes[r.rng.IntN(len(r.Nodes))]
	if victim.ID == r.show(volume).Holder {
		victim = r.Nodes[(r.index(victim.ID)+1)%len(r.Nodes)]
	}
	r.Must(r.t, "dev", "kill", victim.Name, "--dir", r.Dir)
	time.Sleep(time.Duration(r.rng.IntN(10)) * time.Second)
	r.Must(r.t, "dev", "start", victim.Name, "--dir", r.Dir)
	r.Load(r.t)
}

func (r *run) index(node string) int {
	for i, n := range r.Nodes {
		if n.ID == node {
			return i
		}
	}
	r.t.Fatalf("there is no node %s", node)
	return 0
}

// snapshot keeps the volume as it is now, and reads it.
func (r *run) snapshot(volume string, number int) {
	name := fmt.Sprintf("s%d", number)
	r.Must(r.t, "snapshot", "create", volume, name)
	ref := volume + "@" + name
	r.sums[ref] = r.sum(ref)
	r.kept = append(r.kept, ref)
}

// reread reads a snapshot again: it is what it was, whatever happened since.
func (r *run) reread(string, int) {
	if len(r.kept) == 0 {
		return
	}
	ref := r.kept[r.rng.IntN(len(r.kept))]
	if r.sum(ref) != r.sums[ref] {
		r.t.Errorf("snapshot %s is not what it was", ref)
	}
}

// clone makes a volume of a snapshot and reads it; then a write to it, and its end,
// change nothing of where it came from.
func (r *run) clone(_ string, number int) {
	if len(r.kept) == 0 {
		return
	}
	ref := r.kept[r.rng.IntN(len(r.kept))]
	name := fmt.Sprintf("clone%d", number)
	r.Must(r.t, "volume", "clone", ref, name)
	node := r.Nodes[r.rng.IntN(len(r.Nodes))].Name
	if r.sumAt(r.Export(r.t, "nbd", name, node)) != r.sums[ref] {
		r.t.Errorf("a clone of %s is not what that was", ref)
	}
	e := r.Export(r.t, "nbd", name, node)
	if _, _, err := r.fio([]string{
		"--name=clone", "--ioengine=nbd", "--uri=" + e.URI, "--size=16m", "--rw=randwrite", "--bs=4k", "--iodepth=8",
		"--output-format=json", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--verify_state_save=0",
	}); err != nil {
		r.t.Fatal(err)
	}
	e.Stop()
	r.reread("", number)
	r.await(name+" can be deleted", func() bool { return r.Run("volume", "delete", name, "--yes").Status == 0 })
}

// forget deletes a snapshot; the others are what they were.
func (r *run) forget(_ string, number int) {
	if len(r.kept) < 2 {
		return
	}
	i := r.rng.IntN(len(r.kept))
	r.Must(r.t, "snapshot", "delete", r.kept[i], "--yes")
	r.kept = append(r.kept[:i], r.kept[i+1:]...)
	r.reread("", number)
}

// revert makes a volume what it was when a snapshot was made, and reads it.
func (r *run) revert(volume string) {
	if len(r.kept) == 0 {
		return
	}
	ref := r.kept[r.rng.IntN(len(r.kept))]
	r.await(volume+" can be reverted", func() bool {
		return r.Run("snapshot", "revert", ref).Status == 0
	})
	r.await(volume+" is reverted", func() bool { return r.show(volume).Tending == nil })
	if r.sumAt(r.Export(r.t, "nbd", volume, r.Nodes[0].Name)) != r.sums[ref] {
		r.t.Errorf("reverted to %s the volume is not what that was", ref)
	}
	r.count("revert", 1)
}

// sum reads all of a snapshot through one of the nodes.
func (r *run) sum(ref string) [sha256.Size]byte {
	return r.sumAt(r.ExportSnapshot(r.t, ref, r.Nodes[r.rng.IntN(len(r.Nodes))].Name))
}

// sumAt reads all of an export, and ends it.
func (r *run) sumAt(e *devcluster.Export) (out [sha256.Size]byte) {
	defer e.Stop()
	h := sha256.New()
	cmd := exec.Command("nbdcopy", e.URI, "-")
	cmd.Stdout, cmd.Stderr = h, r.t.Output()
	if err := cmd.Run(); err != nil {
		r.t.Fatalf("read %s: %v", e.URI, err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// scrub reads all of one disk.
func (r *run) scrub(string, int) {
	disks := r.Nodes[r.rng.IntN(len(r.Nodes))].Disks
	r.Must(r.t, "disk", "scrub", disks[r.rng.IntN(len(disks))].ID)
}

// jobs are what fio does, in turn.
var jobs = [][]string{
	{"--rw=randwrite", "--bsrange=4k-64k", "--iodepth=16"},
	{"--rw=randrw", "--bsrange=512-64k", "--blockalign=512", "--iodepth=16"},
	{"--rw=randtrimwrite", "--bsrange=4k-64k", "--iodepth=16", "--serialize_overlap=1"},
	{"--rw=write", "--bs=1m", "--iodepth=4"},
}

// load runs fio until it is told to stop, or has found something wrong.
func (r *run) load(uri string, stop <-chan struct{}) error {
	for i := 0; ; i++ {
		args := append([]string{
			"--name=endurance", "--ioengine=nbd", "--uri=" + uri, "--size=96m", "--output-format=json",
			"--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--verify_state_save=0",
			"--randseed=" + strconv.FormatUint(*seed+uint64(i), 10),
		}, jobs[i%len(jobs)]...)
		wrote, read, err := r.fio(args)
		if err != nil {
			return err
		}
		r.count("fio", 1)
		r.count("MiB written", int(wrote>>20))
		r.count("MiB verified", int(read>>20))
		select {
		case <-stop:
			return nil
		default:
		}
	}
}

// fio runs one job and says how many bytes it wrote and read.
func (r *run) fio(args []string) (wrote, read int64, err error) {
	cmd := exec.Command("fio", args...)
	cmd.Dir = r.Dir // where it leaves what it found
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return 0, 0, fmt.Errorf("fio %s: %w\n%s", strings.Join(args, " "), err, devcluster.Tail(said.String(), 30))
	}
	var report struct {
		Jobs []struct {
			Error       int
			Read, Write struct {
				Bytes int64 `json:"io_bytes"`
			}
		}
	}
	_, text, _ := strings.Cut(said.String(), "{")
	if err := json.NewDecoder(strings.NewReader("{" + text)).Decode(&report); err != nil {
		return 0, 0, fmt.Errorf("fio printed %q: %w", said.String(), err)
	}
	if len(report.Jobs) != 1 || report.Jobs[0].Error != 0 || report.Jobs[0].Read.Bytes == 0 {
		return 0, 0, fmt.Errorf("fio verified nothing: %s", said.String())
	}
	return report.Jobs[0].Write.Bytes, report.Jobs[0].Read.Bytes, nil
}

// A volume as `volume show --json` prints it.
type volume struct {
	Holder  string           `json:"holder"`
	Tending *json.RawMessage `json:"tending"`
	Columns []struct {
		Members []struct {
			State string `json:"state"`
		} `json:"members"`
	} `json:"columns"`
}

func (r *run) show(name string) (v volume) {
	res := r.Run("volume", "show", name, "--json")
	if res.Status != 0 || json.Unmarshal([]byte(res.Out), &v) != nil {
		return volume{}
	}
	return v
}

// whole reports whether all members of a volume are active.
func (r *run) whole(name string) bool {
	v := r.show(name)
	for _, c := range v.Columns {
		if len(c.Members) != 2 || c.Members[0].State != "active" || c.Members[1].State != "active" {
			return false
		}
	}
	return len(v.Columns) > 0
}

// empty reports whether no disk has anything on it.
func (r *run) empty() bool {
	res := r.Run("disk", "list", "--json")
	var list struct {
		Items []struct {
			Used int64 `json:"used_bytes"`
		} `json:"items"`
	}
	if res.Status != 0 || json.Unmarshal([]byte(res.Out), &list) != nil {
		return false
	}
	for _, d := range list.Items {
		if d.Used != 0 {
			return false
		}
	}
	return len(list.Items) > 0
}

// await waits for what must come, and says meanwhile how it is going.
func (r *run) await(what string, yes func() bool) {
	r.t.Helper()
	devcluster.Eventually(r.t, 3*time.Minute, what, func() bool {
		if time.Since(r.loud) >= time.Minute {
			r.say()
		}
		return yes()
	})
}

func (r *run) count(what string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done[what] += n
}

// say tells what was done so far.
func (r *run) say() {
	r.loud = time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.t.Logf("%s: %v, no error", r.loud.Sub(r.began).Round(time.Second), r.done)
}
