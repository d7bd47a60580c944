// Command bench measures a volume of a three-node cluster on this machine beside
// qemu-nbd on one raw file, in one run, and prints both and their ratio. Both are
// driven by the same fio jobs over an NBD UNIX socket, in turn, so that what the
// machine does meanwhile hits both alike.
//
// It needs root and the binaries in bin/ (make build-nodes).
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A job is one line of the table.
type job struct {
	name  string
	args  []string
	wants float64 // the ratio to reach; zero: none is set
	bytes bool    // it is measured in bytes, not requests
}

var jobs = []job{
	{"4k random write QD1", []string{"--rw=randwrite", "--bs=4k", "--iodepth=1"}, 0, false},
	{"4k random write QD16", []string{"--rw=randwrite", "--bs=4k", "--iodepth=16"}, 0.25, false},
	{"4k random write QD32", []string{"--rw=randwrite", "--bs=4k", "--iodepth=32"}, 0, false},
	{"4k random read QD1", []string{"--rw=randread", "--bs=4k", "--iodepth=1"}, 0, false},
	{"4k random read QD16", []string{"--rw=randread", "--bs=4k", "--iodepth=16"}, 0.6, false},
	{"4k random read QD32", []string{"--rw=randread", "--bs=4k", "--iodepth=32"}, 0, false},
	{"1M sequential write QD4", []string{"--rw=write", "--bs=1M", "--iodepth=4"}, 0.35, true},
	{"1M sequential read QD4", []string{"--rw=read", "--bs=1M", "--iodepth=4"}, 0, true},
	{"4k write + fsync QD1", []string{"--rw=randwrite", "--bs=4k", "--iodepth=1", "--fsync=1"}, 0.7, false},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// A bench is one run.
type bench struct {
	out     io.Writer
	dir     string
	runtime time.Duration
	size    string
	daemons []int
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	b := &bench{out: out}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.DurationVar(&b.runtime, "runtime", 8*time.Second, "of each job on each side")
	flags.StringVar(&b.size, "size", "2G", "of the volume and the raw file")
	only := flags.String("only", "", "run only the jobs whose name holds this")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("/var/tmp", "dsb-"); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := os.Chmod(b.dir, 0o711); err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	ours, stopOurs, err := b.startOurs(ctx)
	defer stopOurs()
	if err != nil {
		return err
	}
	theirs, stopTheirs, err := b.startTheirs(ctx)
	defer stopTheirs()
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "filling both")
	for _, uri := range []string{ours, theirs} {
		fill := job{args: []string{"--rw=write", "--bs=1M", "--iodepth=4"}, bytes: true}
		if _, err := b.fio(ctx, uri, fill, 0); err != nil {
			return err
		}
	}
	return b.table(ctx, ours, theirs, *only)
}

// table runs the jobs and prints a line for each.
func (b *bench) table(ctx context.Context, ours, theirs, only string) error {
	fmt.Fprintf(b.out, "%-26s %12s %12s %8s %8s %14s\n", "", "drystone", "qemu-nbd", "ratio", "to reach", "cpu s/million")
	missed := 0
	for _, j := range jobs {
		if !strings.Contains(j.name, only) {
			continue
		}
		before := b.cpu()
		mine, err := b.fio(ctx, ours, j, b.runtime)
		if err != nil {
			return err
		}
		spent := b.cpu() - before
		other, err := b.fio(ctx, theirs, j, b.runtime)
		if err != nil {
			return err
		}
		ratio := mine.rate(j) / other.rate(j)
		goal := ""
		if j.wants > 0 {
			goal = fmt.Sprintf("%.2f", j.wants)
			if ratio < j.wants {
				goal += " !"
				missed++
			}
		}
		fmt.Fprintf(b.out, "%-26s %12s %12s %8.2f %8s %14.1f\n",
			j.name, mine.show(j), other.show(j), ratio, goal, spent/float64(mine.ios)*1e6)
	}
	if missed > 0 {
		fmt.Fprintf(b.out, "%d below what is to be reached (!)\n", missed)
	}
	return nil
}

// A figure is what one job came to.
type figure struct {
	ios   int64
	iops  float64
	bytes float64 // per second
}

func (f figure) rate(j job) float64 {
	if j.bytes {
		return f.bytes
	}
	return f.iops
}

func (f figure) show(j job) string {
	if j.bytes {
		return fmt.Sprintf("%.0f MB/s", f.bytes/1e6)
	}
	return fmt.Sprintf("%.0f/s", f.iops)
}

// fio runs a job; with no runtime, once over everything.
func (b *bench) fio(ctx context.Context, uri string, j job, runtime time.Duration) (figure, error) {
	args := append([]string{
		"--name=bench", "--ioengine=nbd", "--uri=" + uri, "--size=" + b.size,
		"--randrepeat=0", "--norandommap", "--output-format=json",
	}, j.args...)
	if runtime > 0 {
		args = append(args, "--time_based", "--ramp_time=1", fmt.Sprintf("--runtime=%d", int(runtime.Seconds())))
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, "fio", args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return figure{}, fmt.Errorf("fio %s: %w: %s", j.name, err, errs.String())
	}
	type direction struct {
		IOs   int64   `json:"total_ios"`
		IOPS  float64 `json:"iops"`
		Bytes float64 `json:"bw_bytes"`
	}
	var report struct {
		Jobs []struct {
			Read  direction `json:"read"`
			Write direction `json:"write"`
		} `json:"jobs"`
	}
	_, text, _ := strings.Cut(out.String(), "{")
	if err := json.Unmarshal([]byte("{"+text), &report); err != nil || len(report.Jobs) == 0 {
		return figure{}, fmt.Errorf("fio printed %q: %w", out.String(), err)
	}
	r, w := report.Jobs[0].Read, report.Jobs[0].Write
	return figure{r.IOs + w.IOs, r.IOPS + w.IOPS, r.Bytes + w.Bytes}, nil
}

// cpu is the processor time of all daemons so far, in seconds.
func (b *bench) cpu() (seconds float64) {
	for _, pid := range b.daemons {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest)
		for _, f := range fields[11:13] {
			ticks, err := strconv.ParseFloat(f, 64)
			if err == nil {
				seconds += ticks / 100
			}
		}
	}
	return seconds
}

// startOurs brings a cluster up and exports a volume of it.
func (b *bench) startOurs(ctx context.Context) (uri string, stop func(), err error) {
	dir := filepath.Join(b.dir, "c")
	cli := func(ctx context.Context, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, "bin/drystone", args...)
		cmd.Env = append(os.Environ(), "DRYSTONE_DIR="+dir)
		cmd.Stderr = os.Stderr
		return cmd
	}
	stop = func() {
		_ = cli(context.WithoutCancel(ctx), "dev", "down", "--dir", dir).Run()
	}
	fmt.Fprintln(b.out, "starting a cluster of three nodes")
	if err := cli(ctx, "dev", "up", "--nodes", "3", "--dir", dir, "--disks", "2", "--disk-size", "4G", "--reserve",
		"--base", "127.0.200", "--storage-only").Run(); err != nil {
		return "", stop, fmt.Errorf("start cluster: %w", err)
	}
	if err := b.readDaemons(dir); err != nil {
		return "", stop, err
	}
	if err := cli(ctx, "volume", "create", "bench", b.size).Run(); err != nil {
		return "", stop, fmt.Errorf("create volume: %w", err)
	}
	export := cli(ctx, "volume", "export", "bench", "--node", "node1", "--nbd", filepath.Join(b.dir, "d.sock"))
	out, err := export.StdoutPipe()
	if err != nil {
		return "", stop, fmt.Errorf("export volume: %w", err)
	}
	if err := export.Start(); err != nil {
		return "", stop, fmt.Errorf("export volume: %w", err)
	}
	down := stop
	stop = func() {
		_ = export.Process.Signal(os.Interrupt)
		_ = export.Wait()
		down()
	}
	line := make([]byte, 4096)
	n, err := out.Read(line)
	uri, ready := strings.CutPrefix(strings.TrimSpace(string(line[:n])), "ready ")
	if err != nil || !ready {
		return "", stop, fmt.Errorf("export volume: it said %q: %w", line[:n], err)
	}
	return uri, stop, nil
}

func (b *bench) readDaemons(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "cluster.json"))
	if err != nil {
		return fmt.Errorf("read cluster: %w", err)
	}
	var c struct {
		Nodes []struct {
			PID int `json:"pid"`
		} `json:"nodes"`
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return fmt.Errorf("read cluster: %w", err)
	}
	for _, n := range c.Nodes {
		b.daemons = append(b.daemons, n.PID)
	}
	return nil
}

// startTheirs serves a raw file, allocated in full, by qemu-nbd.
func (b *bench) startTheirs(ctx context.Context) (uri string, stop func(), err error) {
	raw, socket := filepath.Join(b.dir, "raw"), filepath.Join(b.dir, "q.sock")
	if err := exec.CommandContext(ctx, "fallocate", "-l", b.size, raw).Run(); err != nil {
		return "", func() {}, fmt.Errorf("make raw file: %w", err)
	}
	cmd := exec.CommandContext(ctx, "qemu-nbd", "--cache=none", "--aio=io_uring", "--format=raw", "--persistent",
		"--shared=4", "--socket="+socket, raw)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return "", func() {}, fmt.Errorf("start qemu-nbd: %w", err)
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	for range 100 {
		if _, err := os.Stat(socket); err == nil {
			return "nbd+unix:///?socket=" + socket, stop, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return "", stop, errors.New("qemu-nbd did not open its socket")
}
