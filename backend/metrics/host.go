package metrics

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/mem"
	"github.com/shirou/gopsutil/v4/net"
)

// hostCount is the host's counters at one moment.
type hostCount struct {
	busy, all float64 // seconds of processor time
	rx, tx    uint64
}

// countHost reads the host: three files under /proc, 0.1 ms in all.
func countHost(ctx context.Context) (h Host, c hostCount, err error) {
	if c.busy, c.all, err = Processors(ctx); err != nil {
		return h, c, err
	}
	memory, err := mem.VirtualMemoryWithContext(ctx)
	if err != nil {
		return h, c, fmt.Errorf("read memory: %w", err)
	}
	h.MemTotal = memory.Total
	h.MemUsed = memory.Total - min(memory.Available, memory.Total)

	cards, err := net.IOCountersWithContext(ctx, true)
	if err != nil {
		return h, c, fmt.Errorf("read network counters: %w", err)
	}
	for _, card := range cards {
		if !virtual(card.Name) {
			c.rx += card.BytesRecv
			c.tx += card.BytesSent
		}
	}
	return h, c, nil
}

// Processors returns how many seconds the host's processors were busy since it started,
// and how many there were in all.
func Processors(ctx context.Context) (busy, all float64, err error) {
	times, err := cpu.TimesWithContext(ctx, false)
	if err != nil || len(times) == 0 {
		return 0, 0, fmt.Errorf("read processor times: %w", err)
	}
	t := times[0]
	busy = t.User + t.Nice + t.System + t.Irq + t.Softirq + t.Steal
	return busy, busy + t.Idle + t.Iowait, nil
}

// rates fills in what needs two counts.
func (h *Host) rates(before, now hostCount, took time.Duration) {
	if all := now.all - before.all; all > 0 {
		h.CPU = float32(min(max((now.busy-before.busy)/all, 0), 1))
	}
	if took > 0 && now.rx >= before.rx && now.tx >= before.tx {
		h.NetRx = float32(float64(now.rx-before.rx) / took.Seconds())
		h.NetTx = float32(float64(now.tx-before.tx) / took.Seconds())
	}
}

// virtual reports whether a network interface only passes on what another one
// counts, or never leaves the machine.
func virtual(name string) bool {
	return name == "lo" || slices.ContainsFunc(
		[]string{"veth", "tap", "vnet", "virbr", "br-", "docker", "ifb", "dummy", "bond", "tun"},
		func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}
