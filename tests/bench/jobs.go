package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A job is one line of the table.
type job struct {
	name  string
	wants float64 // the ratio to reach; zero: none is set

	reads    int // percent of the requests; the others write
	random   bool
	block    int
	depth    int
	fsync    bool
	unusual  condition
	vhost    bool // by vhost-user, beside qemu-storage-daemon; else by NBD, beside qemu-nbd
	relative bool // wants is of this volume's own speed under usual conditions
}

// A condition is what is different while a job runs on our side.
type condition int

const (
	usual condition = iota
	filling
	snapshotted
)

const (
	small = 4 << 10
	large = 1 << 20
)

// fill writes all there is.
var fill = job{name: "fill", block: large, depth: 4}

// jobs are the lines, in the order they are run. The marks are those the project has set
// itself; a line without one is there to be looked at.
var jobs = []job{
	{name: "4k random write QD1", wants: 0.5, random: true, block: small, depth: 1},
	{name: "4k random write QD16", wants: 0.4, random: true, block: small, depth: 16},
	{name: "4k random write QD32", wants: 0.45, random: true, block: small, depth: 32},
	{name: "4k random read QD1", wants: 0.8, reads: 100, random: true, block: small, depth: 1},
	{name: "4k random read QD16", wants: 0.85, reads: 100, random: true, block: small, depth: 16},
	{name: "4k random read QD32", wants: 0.85, reads: 100, random: true, block: small, depth: 32},
	{name: "4k mixed 70/30 QD16", wants: 0.55, reads: 70, random: true, block: small, depth: 16},
	{name: "1M sequential write QD4", wants: 0.45, block: large, depth: 4},
	{name: "1M sequential read QD4", wants: 0.8, reads: 100, block: large, depth: 4},
	{name: "4k write + fsync QD1", wants: 1, random: true, block: small, depth: 1, fsync: true},

	{name: "vhost 4k random write QD1", vhost: true, random: true, block: small, depth: 1},
	{name: "vhost 4k random write QD16", vhost: true, random: true, block: small, depth: 16},
	{name: "vhost 4k random read QD1", vhost: true, reads: 100, random: true, block: small, depth: 1},
	{name: "vhost 4k random read QD16", vhost: true, reads: 100, random: true, block: small, depth: 16},
	{name: "vhost 4k mixed 70/30 QD16", vhost: true, reads: 70, random: true, block: small, depth: 16},
	{name: "vhost 1M sequential write QD4", vhost: true, block: large, depth: 4},
	{name: "vhost 1M sequential read QD4", vhost: true, reads: 100, block: large, depth: 4},

	{name: "4k random write QD16, filling", wants: 0.5, relative: true, random: true, block: small, depth: 16, unusual: filling},
	{name: "4k first write QD1, snapshot", relative: true, random: true, block: small, depth: 1, unusual: snapshotted},
	{name: "4k first write QD16, snapshot", relative: true, random: true, block: small, depth: 16, unusual: snapshotted},
}

// chosen are the jobs whose name holds one of some words; all of them without one.
func chosen(words string) []job {
	if words == "" {
		return jobs
	}
	var out []job
	for _, j := range jobs {
		for w := range strings.SplitSeq(words, ",") {
			if strings.Contains(j.name, strings.TrimSpace(w)) {
				out = append(out, j)
				break
			}
		}
	}
	return out
}

// fio is the job in fio's words.
func (j job) fio() []string {
	kind := map[bool]string{true: "rand", false: ""}[j.random]
	switch j.reads {
	case 0:
		kind += "write"
	case 100:
		kind += "read"
	default:
		kind += "rw"
	}
	args := []string{"--rw=" + kind, fmt.Sprintf("--bs=%d", j.block), fmt.Sprintf("--iodepth=%d", j.depth)}
	if j.reads > 0 && j.reads < 100 {
		args = append(args, fmt.Sprintf("--rwmixread=%d", j.reads))
	}
	if j.fsync {
		args = append(args, "--fsync=1")
	}
	return args
}

// drive is the job in the words of the front end that plays QEMU.
func (j job) drive(runtime time.Duration, size int64) []string {
	return []string{
		"-drive.reads=" + strconv.Itoa(j.reads), "-drive.random=" + strconv.FormatBool(j.random),
		"-drive.block=" + strconv.Itoa(j.block), "-drive.depth=" + strconv.Itoa(j.depth),
		"-drive.size=" + strconv.FormatInt(size, 10), "-drive.runtime=" + runtime.String(),
	}
}

// A figure is what one job came to on one side.
type figure struct {
	IOs     int64   `json:"ios"`
	IOPS    float64 `json:"iops"`
	Bytes   float64 `json:"bytes_per_second"`
	Median  float64 `json:"p50_us"`
	Slow    float64 `json:"p99_us"`
	CPU     float64 `json:"cpu_us_per_io"`    // of the server's processes, not of who drives it
	Written float64 `json:"written_per_byte"` // bytes they wrote for each of the job's
}

func (f figure) rate(j job) float64 {
	if j.block == large {
		return f.Bytes
	}
	return f.IOPS
}

func (f figure) show(j job) string {
	if j.block == large {
		return fmt.Sprintf("%.0f MB/s", f.Bytes/1e6)
	}
	return fmt.Sprintf("%.0f/s", f.IOPS)
}
