package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// sides are who is compared, by one protocol at a time.
type sides struct {
	vhost  bool
	ours   side
	theirs side
}

// A side is a server and where it is reached.
type side struct {
	name string
	uri  string // for fio
	path string // for the front end that plays QEMU
	pids func() []int
	end  func()
}

func (s *sides) stop() {
	for _, one := range []*side{&s.ours, &s.theirs} {
		if one.end != nil {
			one.end()
			one.end = nil
		}
	}
}

// serve makes both sides serve by NBD, or by vhost-user.
func (b *bench) serve(ctx context.Context, vhost bool) error {
	if b.sides.ours.end != nil && b.sides.vhost == vhost {
		return nil
	}
	b.sides.stop()
	b.sides.vhost = vhost
	var err error
	if b.sides.ours, err = b.serveOurs(ctx, vhost); err != nil {
		return err
	}
	b.sides.theirs, err = b.serveTheirs(ctx, vhost)
	return err
}

// serveOurs exports the volume.
func (b *bench) serveOurs(ctx context.Context, vhost bool) (side, error) {
	s := side{name: "drystone", path: filepath.Join(b.dir, "d.sock"), pids: b.cluster.daemons}
	protocol := map[bool]string{true: "--vhost", false: "--nbd"}[vhost]
	export := b.cluster.command(ctx, "volume", "export", volume, "--node", "node1", protocol, s.path)
	out, err := export.StdoutPipe()
	if err != nil {
		return side{}, fmt.Errorf("export volume: %w", err)
	}
	if err := export.Start(); err != nil {
		return side{}, fmt.Errorf("export volume: %w", err)
	}
	s.end = func() {
		_ = export.Process.Signal(os.Interrupt)
		_ = export.Wait()
	}
	said := make([]byte, 4096)
	n, err := out.Read(said)
	uri, ready := strings.CutPrefix(strings.TrimSpace(string(said[:n])), "ready ")
	if err != nil || !ready {
		s.end()
		return side{}, fmt.Errorf("export volume: it said %q: %w", said[:n], err)
	}
	s.uri = uri
	return s, nil
}

func (b *bench) raw() string { return filepath.Join(b.dir, "raw") }

// makeRaw makes the raw file, allocated in full.
func (b *bench) makeRaw(ctx context.Context) error {
	size := strconv.FormatInt(b.size, 10)
	if err := exec.CommandContext(ctx, "fallocate", "-l", size, b.raw()).Run(); err != nil { //nolint:gosec // our own file
		return fmt.Errorf("make raw file: %w", err)
	}
	return nil
}

// serveTheirs serves the raw file by one of QEMU's servers.
func (b *bench) serveTheirs(ctx context.Context, vhost bool) (side, error) {
	s := side{name: "qemu-nbd", path: filepath.Join(b.dir, "q.sock")}
	s.uri = "nbd+unix:///?socket=" + s.path
	args := []string{
		"--cache=none", "--aio=io_uring", "--format=raw", "--persistent", "--shared=4", "--socket=" + s.path, b.raw(),
	}
	if vhost {
		s.name = "qemu-storage-daemon"
		args = []string{
			"--blockdev", "driver=file,node-name=file,filename=" + b.raw() + ",cache.direct=on,aio=io_uring",
			"--export", "type=vhost-user-blk,id=export,node-name=file,writable=on,addr.type=unix,addr.path=" + s.path,
		}
	}
	if err := os.Remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return side{}, fmt.Errorf("remove an old socket: %w", err)
	}
	cmd := exec.CommandContext(ctx, s.name, args...) //nolint:gosec // a tool we name
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return side{}, fmt.Errorf("start %s: %w", s.name, err)
	}
	s.pids = func() []int { return []int{cmd.Process.Pid} }
	s.end = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	for range 100 {
		if _, err := os.Stat(s.path); err == nil {
			return s, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.end()
	return side{}, fmt.Errorf("%s did not open its socket", s.name)
}

// measure runs a job on one side.
func (b *bench) measure(ctx context.Context, s *side, j job) (figure, error) {
	before := usageOf(s.pids())
	var f figure
	var err error
	ramp := time.Duration(0)
	if b.sides.vhost {
		f, err = b.drive(ctx, s, j)
	} else {
		ramp = rampTime
		f, err = b.fio(ctx, s, j, b.runtime)
	}
	if err != nil {
		return f, err
	}
	after := usageOf(s.pids())
	// What was done while it warmed up is not in the figure, but is in the usage.
	share := float64(b.runtime) / float64(b.runtime+ramp)
	f.CPU = (after.cpu - before.cpu) * share / float64(f.IOs) * 1e6
	if j.reads < 100 {
		bytes := float64(f.IOs) * float64(j.block) * float64(100-j.reads) / 100
		f.Written = (after.written - before.written) * share / bytes
	}
	return f, nil
}

const rampTime = time.Second

// fio runs a job by NBD; with no runtime, once over everything.
func (b *bench) fio(ctx context.Context, s *side, j job, runtime time.Duration) (figure, error) {
	args := append([]string{
		"--name=bench", "--ioengine=nbd", "--uri=" + s.uri, "--size=" + strconv.FormatInt(b.size, 10),
		"--randrepeat=0", "--norandommap", "--unified_rw_reporting=1", "--output-format=json",
	}, j.fio()...)
	if runtime > 0 {
		args = append(args, "--time_based", fmt.Sprintf("--ramp_time=%d", int(rampTime.Seconds())),
			fmt.Sprintf("--runtime=%d", int(runtime.Seconds())))
	}
	out, err := output(ctx, "fio", args...)
	if err != nil {
		return figure{}, err
	}
	var report struct {
		Jobs []struct {
			Mixed struct {
				IOs     int64   `json:"total_ios"`
				IOPS    float64 `json:"iops"`
				Bytes   float64 `json:"bw_bytes"`
				Latency struct {
					Percentile map[string]float64 `json:"percentile"`
				} `json:"clat_ns"`
			} `json:"mixed"`
		} `json:"jobs"`
	}
	_, text, _ := strings.Cut(out, "{")
	if err := json.Unmarshal([]byte("{"+text), &report); err != nil || len(report.Jobs) == 0 {
		return figure{}, fmt.Errorf("fio printed %q: %w", out, err)
	}
	r := report.Jobs[0].Mixed
	p := r.Latency.Percentile
	return figure{
		IOs: r.IOs, IOPS: r.IOPS, Bytes: r.Bytes, Median: p["50.000000"] / 1e3, Slow: p["99.000000"] / 1e3,
	}, nil
}

// buildFront builds the front end that plays QEMU: the one of backend/vhost's tests.
func (b *bench) buildFront(ctx context.Context) error {
	_, err := output(ctx, "go", "test", "-c", "-o", filepath.Join(b.dir, "front"), "./backend/vhost")
	return err
}

// drive runs a job by vhost-user.
func (b *bench) drive(ctx context.Context, s *side, j job) (f figure, err error) {
	args := append([]string{"-test.run=^TestDrive$", "-drive.socket=" + s.path}, j.drive(b.runtime, b.size)...)
	out, err := output(ctx, filepath.Join(b.dir, "front"), args...)
	if err != nil {
		return f, err
	}
	_, text, found := strings.Cut(out, "drive: ")
	text, _, _ = strings.Cut(text, "\n")
	var d struct {
		IOs    int64   `json:"ios"`
		IOPS   float64 `json:"iops"`
		Bytes  float64 `json:"bytes"`
		Median float64 `json:"p50_us"`
		Slow   float64 `json:"p99_us"`
	}
	if err := json.Unmarshal([]byte(text), &d); err != nil || !found {
		return f, fmt.Errorf("the front end printed %q: %w", out, err)
	}
	return figure{IOs: d.IOs, IOPS: d.IOPS, Bytes: d.Bytes, Median: d.Median, Slow: d.Slow}, nil
}

// output runs a program and returns what it printed.
func output(ctx context.Context, name string, args ...string) (string, error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // tools we name
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s%s", filepath.Base(name), err, errs.String(), out.String())
	}
	return out.String(), nil
}

// A use is what processes have used so far.
type use struct {
	cpu     float64 // seconds
	written float64 // bytes
}

// usageOf adds up some processes; one that is gone counts as nothing.
func usageOf(pids []int) (u use) {
	for _, pid := range pids {
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
			_, rest, _ := strings.Cut(string(text), ") ")
			for _, f := range strings.Fields(rest)[11:13] {
				ticks, _ := strconv.ParseFloat(f, 64)
				u.cpu += ticks / 100
			}
		}
		if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid)); err == nil {
			_, rest, _ := strings.Cut(string(text), "\nwrite_bytes: ")
			number, _, _ := strings.Cut(rest, "\n")
			n, _ := strconv.ParseFloat(number, 64)
			u.written += n
		}
	}
	return u
}
