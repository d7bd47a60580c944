// Package auth knows passwords, session tokens and roles, and holds the one
// function that says yes or no: Allow.
//
// It keeps no users and no sessions: those are in the replicated record, and the
// API reads and writes them there. It never logs, and no error of it holds a
// password, a token or a hash. Everything here may be used by many goroutines.
package auth
