package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The floor is what the machine takes for the least that a lone request needs of it,
// by plain programs that do nothing else.

// A spread is where some times lie, in microseconds.
type spread struct {
	What   string  `json:"what"`
	Low    float64 `json:"p10_us"`
	Median float64 `json:"p50_us"`
}

// spreadOf sorts times.
func spreadOf(what string, times []time.Duration) spread {
	s := spread{What: what}
	if len(times) > 0 {
		slices.Sort(times)
		s.Low, s.Median = micro(times[len(times)/10]), micro(times[len(times)/2])
	}
	return s
}

func micro(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

// floor measures it: the disk by fio on plain files beside the cluster's, without any
// server, and processes that wake each other by one byte.
func (b *bench) floor(ctx context.Context) (out []spread, err error) {
	for _, f := range []struct {
		what string
		args []string
	}{
		{"a read of 4 KiB", []string{"--rw=randread"}},
		{"a write of 4 KiB", []string{"--rw=randwrite"}},
		{"a write of 4 KiB, durable", []string{"--rw=randwrite", "--sync=dsync"}},
		{"two of them at once, to two files", []string{
			"--rw=randwrite", "--sync=dsync", "--filename=" + b.raw() + ":" + b.raw() + "2", "--file_service_type=roundrobin:1",
			"--iodepth=2", "--iodepth_batch=2", "--iodepth_low=0", "--iodepth_batch_complete_min=2", "--iodepth_batch_complete_max=2",
		}},
	} {
		s, err := b.plain(ctx, f.what, f.args)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	for _, network := range []string{"unix", "tcp"} {
		times, err := b.pingPong(ctx, network)
		if err != nil {
			return nil, err
		}
		out = append(out, spreadOf("one byte to another process and back, "+network, times))
	}
	return out, nil
}

// plain runs fio with io_uring on files of its own.
func (b *bench) plain(ctx context.Context, what string, more []string) (s spread, err error) {
	args := append([]string{
		"--name=floor", "--ioengine=io_uring", "--direct=1", "--bs=4k", "--filename=" + b.raw(),
		"--filesize=" + strconv.FormatInt(b.size, 10), "--norandommap", "--randrepeat=0", "--time_based", "--overwrite=1",
		fmt.Sprintf("--runtime=%d", int(b.runtime.Seconds())), "--percentile_list=10:50", "--lat_percentiles=1",
		"--unified_rw_reporting=1", "--output-format=json",
	}, more...)
	out, err := output(ctx, "fio", args...)
	if err != nil {
		return s, err
	}
	var report struct {
		Jobs []struct {
			Mixed struct {
				Latency struct {
					Percentile map[string]float64 `json:"percentile"`
				} `json:"lat_ns"`
			} `json:"mixed"`
		} `json:"jobs"`
	}
	_, text, _ := strings.Cut(out, "{")
	if err := json.Unmarshal([]byte("{"+text), &report); err != nil || len(report.Jobs) == 0 {
		return s, fmt.Errorf("fio printed %q: %w", out, err)
	}
	p := report.Jobs[0].Mixed.Latency.Percentile
	return spread{What: what, Low: p["10.000000"] / 1e3, Median: p["50.000000"] / 1e3}, nil
}

// pingPong sends a byte to a process that does nothing else, again and again, and
// waits for it to come back. Both block in plain calls.
func (b *bench) pingPong(ctx context.Context, network string) ([]time.Duration, error) {
	address := "127.0.0.1:0"
	if network == "unix" {
		address = b.dir + "/pong"
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	defer func() { _ = l.Close() }()
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find myself: %w", err)
	}
	other := exec.CommandContext(ctx, self, "pong", network, l.Addr().String()) //nolint:gosec // ourselves
	other.Stderr = os.Stderr
	if err := other.Start(); err != nil {
		return nil, fmt.Errorf("start the other process: %w", err)
	}
	defer func() { _ = other.Wait() }()
	conn, err := l.Accept()
	if err != nil {
		return nil, fmt.Errorf("accept: %w", err)
	}
	fd, err := blocking(conn)
	if err != nil {
		return nil, err
	}
	defer func() { _ = syscall.Close(fd) }()
	var times []time.Duration
	one := []byte{1}
	for end := time.Now().Add(b.runtime); time.Now().Before(end); {
		began := time.Now()
		if _, err := syscall.Write(fd, one); err != nil {
			return nil, fmt.Errorf("ping: %w", err)
		}
		if n, err := syscall.Read(fd, one); n != 1 || err != nil {
			return nil, fmt.Errorf("pong: %w", err)
		}
		times = append(times, time.Since(began))
		time.Sleep(100 * time.Microsecond) // both fall asleep, as they do between lone requests
	}
	return times, nil
}

// pong is the other process.
func pong(network, address string) error {
	conn, err := (&net.Dialer{}).Dial(network, address)
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	fd, err := blocking(conn)
	if err != nil {
		return err
	}
	one := []byte{1}
	for {
		if n, err := syscall.Read(fd, one); n != 1 {
			return err
		}
		if _, err := syscall.Write(fd, one); err != nil {
			return nil //nolint:nilerr // the first process is done
		}
	}
}

// blocking takes a connection out of the runtime's poller.
func blocking(conn net.Conn) (fd int, err error) {
	defer func() { _ = conn.Close() }()
	if t, ok := conn.(*net.TCPConn); ok {
		_ = t.SetNoDelay(true)
	}
	f, ok := conn.(interface{ File() (*os.File, error) })
	if !ok {
		return 0, fmt.Errorf("%T has no file", conn)
	}
	file, err := f.File()
	if err != nil {
		return 0, fmt.Errorf("take connection: %w", err)
	}
	defer func() { _ = file.Close() }()
	if fd, err = syscall.Dup(int(file.Fd())); err != nil {
		return 0, fmt.Errorf("take connection: %w", err)
	}
	return fd, nil
}
