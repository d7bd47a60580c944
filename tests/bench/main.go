// Command bench measures a volume of a three-node cluster on this machine beside
// QEMU's servers on one raw file, in one run, and prints both and their ratio: by NBD
// beside qemu-nbd, both driven by the same fio jobs, and by vhost-user beside
// qemu-storage-daemon, both driven by the front end that backend/vhost is tested with.
// The sides take turns, so that what the machine does meanwhile hits both alike.
//
// It needs root, the binaries in bin/ (make build-nodes) and Go.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// A bench is one run.
type bench struct {
	out     io.Writer
	json    bool
	dir     string
	runtime time.Duration
	size    int64
	cluster cluster
	sides   sides
}

// A line is what one job came to.
type line struct {
	Job     string  `json:"job"`
	Ours    figure  `json:"drystone"`
	Theirs  figure  `json:"other"` // QEMU's server, or this volume under usual conditions
	Beside  string  `json:"beside"`
	Ratio   float64 `json:"ratio"`
	Wants   float64 `json:"to_reach,omitempty"`
	Reached *bool   `json:"reached,omitempty"`
	Note    string  `json:"note,omitempty"`
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	b := &bench{out: out}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.DurationVar(&b.runtime, "runtime", 8*time.Second, "of each job on each side, whole seconds")
	mib := flags.Int64("size", 2048, "of the volume and the raw file, in MiB")
	words := flags.String("jobs", "", "run only the jobs whose name holds one of these, separated by commas")
	base := flags.String("base", "127.0.200", "first three bytes of the nodes' loopback addresses")
	flags.BoolVar(&b.json, "json", false, "print JSON, a line for each job")
	where := flags.Bool("stages", false, "show instead where the time of a lone request goes, and the machine's floor")
	if len(args) == 3 && args[0] == "pong" {
		return pong(args[1], args[2])
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	b.size, b.runtime = *mib<<20, b.runtime.Truncate(time.Second)
	todo := chosen(*words)
	if len(todo) == 0 || b.runtime <= 0 || b.size < 64<<20 {
		return errors.New("there is no such job, or no time or room for it")
	}
	if b.dir, err = os.MkdirTemp("/var/tmp", "dsb-"); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := os.Chmod(b.dir, 0o711); err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	defer b.cluster.down(ctx)
	if err := b.prepare(ctx, *base); err != nil {
		return err
	}
	defer func() { b.sides.stop() }()
	if *where {
		return b.showStages(ctx)
	}
	return b.table(ctx, todo)
}

// say tells the operator what is going on.
func (b *bench) say(format string, args ...any) {
	if !b.json {
		fmt.Fprintf(b.out, format+"\n", args...)
	}
}

// prepare starts the cluster, and fills the volume and the raw file.
func (b *bench) prepare(ctx context.Context, base string) error {
	b.say("starting a cluster of three nodes")
	if err := b.cluster.up(ctx, b.dir, base, b.size); err != nil {
		return err
	}
	if err := b.buildFront(ctx); err != nil {
		return err
	}
	if err := b.makeRaw(ctx); err != nil {
		return err
	}
	if err := b.serve(ctx, false); err != nil {
		return err
	}
	b.say("filling both")
	for _, s := range []*side{&b.sides.ours, &b.sides.theirs} {
		if _, err := b.fio(ctx, s, fill, 0); err != nil {
			return err
		}
	}
	return nil
}

// table runs the jobs and prints a line for each.
func (b *bench) table(ctx context.Context, todo []job) error {
	b.say("\n%-32s %11s %11s %6s  %-9s %17s %17s %15s %7s", "", "drystone", "qemu", "ratio", "to reach",
		"p50/p99 us", "qemu's", "cpu us/io, qemu", "written")
	missed, marked := 0, 0
	for _, j := range todo {
		if err := b.serve(ctx, j.vhost); err != nil {
			return err
		}
		l, err := b.compare(ctx, j)
		if err != nil {
			return fmt.Errorf("%s: %w", j.name, err)
		}
		if l.Reached != nil {
			if marked++; !*l.Reached {
				missed++
			}
		}
		if err := b.print(j, l); err != nil {
			return err
		}
	}
	b.say("\n%d of %d marks reached. CPU is that of the servers' processes, without who drives them and the kernel's own threads;", marked-missed, marked)
	b.say("written is what they wrote for each byte of the job's: two copies, the journal, and the map.")
	return nil
}

// compare runs a job on both sides, or on ours under usual conditions and others.
func (b *bench) compare(ctx context.Context, j job) (line, error) {
	l := line{Job: j.name, Beside: b.sides.theirs.name, Wants: j.wants}
	var err error
	if j.relative {
		l.Beside = "itself, undisturbed"
		if j.unusual == snapshotted { // none of an earlier job is to be felt
			if _, err := b.fio(ctx, &b.sides.ours, fill, 0); err != nil {
				return l, err
			}
		}
		if l.Theirs, err = b.measure(ctx, &b.sides.ours, j); err != nil {
			return l, err
		}
		if l.Note, l.Ours, err = b.disturbed(ctx, j); err != nil {
			return l, err
		}
	} else {
		if l.Ours, err = b.measure(ctx, &b.sides.ours, j); err != nil {
			return l, err
		}
		if l.Theirs, err = b.measure(ctx, &b.sides.theirs, j); err != nil {
			return l, err
		}
	}
	l.Ratio = l.Ours.rate(j) / l.Theirs.rate(j)
	if j.wants > 0 {
		reached := l.Ratio >= j.wants
		l.Reached = &reached
	}
	return l, nil
}

func (b *bench) encode(v any) error {
	if err := json.NewEncoder(b.out).Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

func (b *bench) print(j job, l line) error {
	if b.json {
		return b.encode(l)
	}
	goal, written := "", ""
	if l.Reached != nil {
		goal = fmt.Sprintf("%.2f %s", l.Wants, map[bool]string{true: "yes", false: "NO"}[*l.Reached])
	}
	if l.Ours.Written > 0 {
		written = fmt.Sprintf("%.1f", l.Ours.Written)
	}
	b.say("%-32s %11s %11s %6.2f  %-9s %17s %17s %15s %7s %s", l.Job, l.Ours.show(j), l.Theirs.show(j), l.Ratio, goal,
		fmt.Sprintf("%.0f/%.0f", l.Ours.Median, l.Ours.Slow), fmt.Sprintf("%.0f/%.0f", l.Theirs.Median, l.Theirs.Slow),
		fmt.Sprintf("%.0f, %.0f", l.Ours.CPU, l.Theirs.CPU), written, l.Note)
	return nil
}
