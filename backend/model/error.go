package model

import (
	"errors"
	"fmt"
)

// A Code is the part of an error a program may branch on. The API maps each
// code to one HTTP status, the CLI to one exit status, and the interface to one
// sentence.
type Code string

// The codes, complete.
const (
	Invalid     Code = "invalid"     // the request can never succeed as written
	NotFound    Code = "not_found"   // the object is not there
	Conflict    Code = "conflict"    // the object is not as the caller believed
	Denied      Code = "denied"      // the caller is known and may not
	Unknown     Code = "unknown"     // the caller is not known: log in
	Unavailable Code = "unavailable" // try again: no leader, no quorum, draining
	Fenced      Code = "fenced"      // a newer generation owns the volume; stop writing
	NoSpace     Code = "no_space"    // the pool or a disk has no room for it
	Corrupt     Code = "corrupt"     // stored data did not match its checksum
	Internal    Code = "internal"    // everything else; details go to the log only
)

// An Error carries a code across package and network boundaries.
type Error struct {
	Code Code
	Text string // one sentence for a person, without secrets or paths
	Err  error  // the cause, for the log; never serialised
}

// Errorf makes an Error with a code and a sentence for a person. A %w verb
// keeps the cause in the chain; its text is then part of the sentence.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Text: err.Error(), Err: errors.Unwrap(err)}
}

func (e *Error) Error() string { return e.Text }

func (e *Error) Unwrap() error { return e.Err }

// CodeOf reports the code of the first Error in err's chain, or Internal.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return Internal
}
