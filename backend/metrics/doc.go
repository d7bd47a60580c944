// Package metrics knows what the cluster does each second: processors, memory and
// network of every node, fill, rate and latency of every disk and every guest.
//
// A node always samples itself, which costs it well under a thousandth of a core,
// and keeps ten minutes. The other nodes' samples are fetched only while somebody
// watches, and what a node missed of another is fetched after the fact, so a chart
// has its past as soon as it is opened. Numbers are hints for people: nothing in
// the cluster decides by them.
//
// What each guest did is kept for two years by the node it was on, in a file of fixed
// size (package ringfile). Any node answers for all: it asks the others and joins what
// they say, so that a machine's history follows it. All else is in memory only.
package metrics
