// Package cluster holds the tests that run whole clusters: real daemons, real
// guests and outside tools, driven through the command line as a person would,
// with faults injected from outside. They need root, the packages of
// build/packages.txt and the binaries in bin/ (make build).
package cluster
