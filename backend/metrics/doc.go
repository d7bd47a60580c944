// Package metrics knows what the cluster does each second: processors, memory and
// network of every node, fill, rate and latency of every disk and every guest.
//
// A node always samples itself, which costs it well under a thousandth of a core,
// and keeps ten minutes. The other nodes' samples are fetched only while somebody
// watches, and what a node missed of another is fetched after the fact, so a chart
// has its past as soon as it is opened. Numbers are hints for people: nothing in
// the cluster decides by them. Everything is kept in memory only.
package metrics
