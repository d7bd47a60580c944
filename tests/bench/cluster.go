package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

const volume = "bench"

// A cluster is the three nodes on this machine that are measured.
type cluster struct {
	dir string
}

// command is the CLI's.
func (c *cluster) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bin/drystone", args...) //nolint:gosec // our own program
	cmd.Env = append(os.Environ(), "DRYSTONE_DIR="+c.dir)
	cmd.Stderr = os.Stderr
	return cmd
}

func (c *cluster) run(ctx context.Context, args ...string) error {
	if err := c.command(ctx, args...).Run(); err != nil {
		return fmt.Errorf("drystone %v: %w", args, err)
	}
	return nil
}

// up starts it, with room for the volume, its copies and a snapshot.
func (c *cluster) up(ctx context.Context, dir, base string, size int64) error {
	c.dir = filepath.Join(dir, "c")
	each := max(2*(size>>20), 1024)
	err := c.run(ctx, "dev", "up", "--nodes", "3", "--dir", c.dir, "--disks", "2", "--disk-size", fmt.Sprintf("%dM", each),
		"--reserve", "--base", base, "--storage-only")
	if err != nil {
		return err
	}
	return c.run(ctx, "volume", "create", volume, strconv.FormatInt(size, 10))
}

func (c *cluster) down(ctx context.Context) {
	if c.dir != "" {
		_ = c.run(context.WithoutCancel(ctx), "dev", "down", "--dir", c.dir)
	}
}

// daemons are the processes of the nodes, as they are now.
func (c *cluster) daemons() []int {
	text, err := os.ReadFile(filepath.Join(c.dir, "cluster.json"))
	var record struct {
		Nodes []struct {
			PID int `json:"pid"`
		} `json:"nodes"`
	}
	if err != nil || json.Unmarshal(text, &record) != nil {
		return nil
	}
	var pids []int
	for _, n := range record.Nodes {
		pids = append(pids, n.PID)
	}
	return pids
}

// A state is what the record says of the volume.
type state struct {
	Fill *struct {
		Done  int64 `json:"done_bytes"`
		Total int64 `json:"total_bytes"`
	} `json:"fill"`
	OutOfSync int `json:"columns_out_of_sync"`
}

func (c *cluster) volume(ctx context.Context) (s state, err error) {
	cmd := c.command(ctx, "volume", "show", volume, "--json")
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		return s, fmt.Errorf("show volume: %w", err)
	}
	if err := json.Unmarshal(out.Bytes(), &s); err != nil {
		return s, fmt.Errorf("show volume: %w", err)
	}
	return s, nil
}

// await waits until the volume is as wanted.
func (c *cluster) await(ctx context.Context, what string, is func(state) bool) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		s, err := c.volume(ctx)
		if err == nil && is(s) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until the volume is %s: %w; it is %+v", what, ctx.Err(), s)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// disturbed runs a job on our side under the conditions it asks for.
func (b *bench) disturbed(ctx context.Context, j job) (note string, f figure, err error) {
	if j.unusual == snapshotted {
		name := fmt.Sprintf("s%d", time.Now().UnixNano())
		if err := b.cluster.run(ctx, "snapshot", "create", volume, name); err != nil {
			return "", f, err
		}
		f, err = b.measure(ctx, &b.sides.ours, j)
		return "", f, err
	}
	// A node dies, and what it had is copied to the disks that are left.
	if err := b.cluster.run(ctx, "dev", "kill", "node3", "--dir", b.cluster.dir); err != nil {
		return "", f, err
	}
	if err := b.cluster.await(ctx, "being filled", func(s state) bool { return s.Fill != nil }); err != nil {
		return "", f, err
	}
	watched, stop := context.WithCancel(ctx)
	seen := make(chan [2]int, 1)
	go func() { seen <- b.watchFill(watched) }()
	f, err = b.measure(ctx, &b.sides.ours, j)
	stop()
	if n := <-seen; n[1] > 0 {
		note = fmt.Sprintf("filled in %d%% of the time", 100*n[0]/n[1])
	}
	if err != nil {
		return note, f, err
	}
	if err := b.cluster.run(ctx, "dev", "start", "node3", "--dir", b.cluster.dir); err != nil {
		return note, f, err
	}
	return note, f, b.cluster.await(ctx, "whole", func(s state) bool { return s.OutOfSync == 0 })
}

// watchFill counts how often the volume was being filled when it looked, and how often
// it looked.
func (b *bench) watchFill(ctx context.Context) (n [2]int) {
	for ctx.Err() == nil {
		if s, err := b.cluster.volume(ctx); err == nil {
			if n[1]++; s.Fill != nil {
				n[0]++
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
	return n
}
