package metrics

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"drystone.example/drystone/backend/model"
)

// A Topic names one table of numbers.
type Topic string

// The topics, complete.
const (
	Cluster Topic = "cluster" // one row: the nodes' totals
	Nodes   Topic = "nodes"
	Disks   Topic = "disks"
	Guests  Topic = "vms"
)

// A Frame is one second of a topic, in columns: every column, and Age, has one
// value for each of IDs.
type Frame struct {
	At      int64 // Unix milliseconds
	IDs     []string
	Columns map[string][]float64
	Age     []float64 // seconds since the sample behind each
}

// A History is a topic's past. Series holds, for each moment of T, one value for
// each of IDs; NaN where there was none.
type History struct {
	IDs    []string
	T      []int64
	Series map[string][][]float64
}

// columnsOf lists the columns of a topic, in the order of row.
func columnsOf(t Topic) []string {
	io := []string{"r_iops", "w_iops", "r_bps", "w_bps", "r_lat", "w_lat"}
	switch t {
	case Cluster, Nodes:
		return append([]string{"cpu", "mem_used", "mem_total", "net_rx", "net_tx"}, io...)
	case Disks:
		return append([]string{"used", "size"}, io...)
	case Guests:
		return append([]string{"cpu", "mem_used"}, io...)
	}
	return nil
}

// A row is the values of one id.
type row struct {
	id     string
	values []float64
	age    time.Duration
}

func (r Rate) values() []float64 {
	return []float64{
		float64(r.ReadIOPS), float64(r.WriteIOPS), float64(r.ReadBps),
		float64(r.WriteBps), float64(r.ReadLat), float64(r.WriteLat),
	}
}

func hostRow(id string, h Host, r Rate) row {
	return row{id: id, values: append([]float64{
		float64(h.CPU), float64(h.MemUsed), float64(h.MemTotal),
		float64(h.NetRx), float64(h.NetTx),
	}, r.values()...)}
}

// diskRate is what all disks of a node do.
func (s Sample) diskRate() (r Rate) {
	for _, d := range s.Disks {
		r = r.add(d.Rate)
	}
	return r
}

// rows are the values of one node's sample in a topic.
func (s Sample) rows(t Topic, node model.NodeID) []row {
	switch t {
	case Cluster, Nodes:
		return []row{hostRow(node.String(), s.Host, s.diskRate())}
	case Disks:
		rows := make([]row, 0, len(s.Disks))
		for _, d := range s.Disks {
			values := append([]float64{float64(d.Used), float64(d.Size)}, d.Rate.values()...)
			rows = append(rows, row{id: d.ID.String(), values: values})
		}
		return rows
	case Guests:
		rows := make([]row, 0, len(s.Guests))
		for _, g := range s.Guests {
			values := append([]float64{float64(g.CPU), float64(g.Used)}, g.Rate.values()...)
			rows = append(rows, row{id: g.ID.String(), values: values})
		}
		return rows
	}
	return nil
}

// total adds nodes up to one row. Its age is that of the oldest.
func total(id string, samples []Sample) row {
	var h Host
	var r Rate
	var busy float64
	for _, s := range samples {
		h.CPUs += s.Host.CPUs
		busy += float64(s.Host.CPU) * float64(s.Host.CPUs)
		h.MemUsed += s.Host.MemUsed
		h.MemTotal += s.Host.MemTotal
		h.NetRx += s.Host.NetRx
		h.NetTx += s.Host.NetTx
		r = r.add(s.diskRate())
	}
	if h.CPUs > 0 {
		h.CPU = float32(busy / float64(h.CPUs))
	}
	return hostRow(id, h, r)
}

// away is how old a node's newest sample may be before it no longer counts as
// something the node does now.
const away = 10 * time.Second

// Frame is the newest values of a topic. What was last heard of more than ten
// seconds ago is left out of the totals and of disks and guests; a node stays,
// with its age.
func (m *Metrics) Frame(t Topic) Frame {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	var rows []row
	var fresh []Sample
	var oldest time.Duration
	for node, s := range m.nodes {
		if len(s.samples) == 0 {
			continue
		}
		last, age := s.samples[len(s.samples)-1], now.Sub(s.heard)
		if age > away && t != Nodes {
			continue
		}
		fresh, oldest = append(fresh, last), max(oldest, age)
		for _, r := range last.rows(t, node) {
			r.age = age
			rows = append(rows, r)
		}
	}
	if t == Cluster {
		r := total(m.clusterID(), fresh)
		r.age = oldest
		rows = []row{r}
	}
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.age, b.age))
	})
	// A guest that just moved is in two nodes' samples; the newer one counts.
	rows = slices.CompactFunc(rows, func(a, b row) bool { return a.id == b.id })
	return frame(now.UnixMilli(), columnsOf(t), rows)
}

func frame(at int64, columns []string, rows []row) Frame {
	f := Frame{
		At:      at,
		IDs:     make([]string, len(rows)),
		Columns: make(map[string][]float64, len(columns)),
		Age:     make([]float64, len(rows)),
	}
	for c, name := range columns {
		values := make([]float64, len(rows))
		for i, r := range rows {
			values[i] = r.values[c]
		}
		f.Columns[name] = values
	}
	for i, r := range rows {
		f.IDs[i] = r.id
		f.Age[i] = math.Round(max(r.age, 0).Seconds()*10) / 10
	}
	return f
}

// History is the last seconds of a topic, one moment per second, oldest first, by
// this node's clock. Nodes are taken to have the same time; one whose clock is off
// has its values shifted by as much.
func (m *Metrics) History(t Topic, seconds int) History {
	seconds = min(max(seconds, 1), kept)
	end := time.Now().Truncate(interval).UnixMilli()
	start := end - int64(seconds)*1000
	m.mu.Lock()
	defer m.mu.Unlock()

	// slots[i] holds the rows of the second that ends at start + (i+1) s.
	slots := make([][]row, seconds)
	samples := make([][]Sample, seconds)
	slot := func(sample Sample) int { return int((sample.At-start+999)/1000) - 1 }
	for node, s := range m.nodes {
		recent := s.recent(kept)
		for n, sample := range recent {
			i := slot(sample)
			if sample.At <= start || i >= seconds || n+1 < len(recent) && slot(recent[n+1]) == i {
				continue // too old, too new, or not the last one of its second
			}
			samples[i] = append(samples[i], sample)
			slots[i] = append(slots[i], sample.rows(t, node)...)
		}
	}
	if t == Cluster {
		for i := range slots {
			slots[i] = nil
			if len(samples[i]) > 0 {
				slots[i] = []row{total(m.clusterID(), samples[i])}
			}
		}
	}
	return history(start, columnsOf(t), slots)
}

func history(start int64, columns []string, slots [][]row) History {
	h := History{IDs: []string{}, T: make([]int64, len(slots)), Series: map[string][][]float64{}}
	place := map[string]int{}
	for _, rows := range slots {
		for _, r := range rows {
			if _, known := place[r.id]; !known {
				place[r.id] = 0
				h.IDs = append(h.IDs, r.id)
			}
		}
	}
	slices.Sort(h.IDs)
	for i, id := range h.IDs {
		place[id] = i
	}
	for c, name := range columns {
		table := make([][]float64, len(slots))
		for i, rows := range slots {
			values := make([]float64, len(h.IDs))
			for j := range values {
				values[j] = math.NaN()
			}
			for _, r := range rows {
				values[place[r.id]] = r.values[c]
			}
			table[i] = values
		}
		h.Series[name] = table
	}
	for i := range h.T {
		h.T[i] = start + int64(i+1)*1000
	}
	return h
}

// Caught waits until every other node was asked at least once since somebody
// watches, or ctx ends; the caller is watching. It makes the first History whole.
func (m *Metrics) Caught(ctx context.Context) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !m.caught() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (m *Metrics) caught() bool {
	others := m.Peers.Others()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, node := range others {
		if s := m.nodes[node]; s == nil || !s.polled {
			return false
		}
	}
	return true
}

// clusterID names the cluster's one row.
func (m *Metrics) clusterID() string { return m.Cluster.String() }
