// Package client speaks to a node's API: over its unix socket as root, or over
// TLS with the cluster's CA pinned and a token.
//
// An error the API answered is a *model.Error with the API's code; one that kept
// the API from answering (no route, refused, timed out) has model.Unavailable.
// No error holds a token or a password. A Client may be used by many goroutines.
package client
