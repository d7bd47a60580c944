package schema

import "drystone.example/drystone/backend/model"

// A Topic names what a live stream can be asked for.
type Topic string

// The topics, complete.
const (
	TopicCluster Topic = "cluster"
	TopicNodes   Topic = "nodes"
	TopicDisks   Topic = "disks"
	TopicVMs     Topic = "vms"
	TopicEvents  Topic = "events"
)

// A LiveRequest is what a client of the live stream sends.
type LiveRequest struct {
	Op    string `json:"op" enum:"subscribe,unsubscribe"`
	Topic Topic  `json:"topic" enum:"cluster,nodes,disks,vms,events"`
}

// A MetricsFrame is one second of one topic. Every column of V, and Age, has one
// value for each of IDs. Seq counts the frames of the topic on this connection; a
// gap means that frames were dropped because the client was slow.
type MetricsFrame struct {
	Topic Topic                `json:"topic" enum:"cluster,nodes,disks,vms"`
	Seq   uint64               `json:"seq"`
	T     int64                `json:"t"` // Unix milliseconds
	IDs   []string             `json:"ids"`
	V     map[string][]float64 `json:"v"`
	Age   []float64            `json:"age"` // seconds since the sample behind each
}

// An EventFrame says that the record of some nouns changed: fetch them again. A
// resync says that any may have. Events are never dropped.
type EventFrame struct {
	Topic   Topic    `json:"topic" enum:"events"`
	Seq     uint64   `json:"seq"`
	T       int64    `json:"t"`
	Kind    string   `json:"kind" enum:"changed,resync"`
	Objects []string `json:"objects,omitempty"`
}

// The kinds of events, complete.
const (
	EventChanged = "changed"
	EventResync  = "resync"
)

// A VMHistory is what a machine did on all nodes it was on: the means of every so many
// seconds, oldest first. Every series has one value for each of T; null is a time that
// nobody knows anything of, such as while it was off.
type VMHistory struct {
	ID      model.VMID            `json:"id"`
	Step    int64                 `json:"step_seconds"`
	T       []int64               `json:"t" doc:"Unix milliseconds, of the begin of each step"`
	Series  map[string][]*float64 `json:"series" doc:"the columns of the topic vms"`
	Missing []string              `json:"missing" doc:"names of nodes that did not say what they know"`
}

// A History is what a topic's frames were: at each of T, one row per series with
// one value for each of IDs. Null is a value nobody has.
type History struct {
	Topic  Topic                   `json:"topic" enum:"cluster,nodes,disks,vms"`
	IDs    []string                `json:"ids"`
	T      []int64                 `json:"t"`
	Series map[string][][]*float64 `json:"series"`
}
