package api

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"

	"drystone.example/drystone/backend/auth"
	"drystone.example/drystone/backend/fetch"
	"drystone.example/drystone/backend/meta/command"
	"drystone.example/drystone/backend/meta/state"
	"drystone.example/drystone/backend/metrics"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/shelf"
	"drystone.example/drystone/backend/spool"
)

// A Record is the replicated record as the API uses it.
type Record interface {
	// Apply makes a change in somebody's name and returns what the command
	// says it returns. The change is in Local when it returns.
	Apply(ctx context.Context, by model.Actor, c command.Command) (any, error)

	// View is the record with every change in it that was acknowledged to
	// anybody before the call.
	View(ctx context.Context) (*state.View, error)

	// Local is the record as this node has it, which may be old. It is never nil.
	Local() *state.View
}

// Config is what a Server needs.
type Config struct {
	Self    model.NodeID
	Version string // of the daemon

	Record  Record
	Service Service
	Metrics *metrics.Metrics
	Uploads *spool.Spool
	Shelf   *shelf.Shelf  // of exports
	Fetch   *fetch.Client // of images
	Hasher  *auth.Hasher
	Log     *slog.Logger

	// Page answers everything outside /api/: the web app.
	Page http.Handler

	// Listen are the addresses for people, host:port; TLS is served there.
	Listen []string
	TLS    *tls.Config

	// Socket is the path of the UNIX socket on which root is the owner.
	Socket string
}

// Validate reports every mistake at once.
func (c Config) Validate() error {
	var errs []error
	missing := func(is bool, what string) {
		if is {
			errs = append(errs, errors.New("the api needs "+what))
		}
	}
	missing(c.Self == 0, "the node's identifier")
	missing(c.Record == nil, "the record")
	missing(c.Service == nil, "a service")
	missing(c.Metrics == nil, "metrics")
	missing(c.Uploads == nil, "a spool of uploads")
	missing(c.Shelf == nil, "a shelf for exports")
	missing(c.Fetch == nil, "a client to fetch images")
	missing(c.Hasher == nil, "a password hasher")
	missing(c.Log == nil, "a log")
	missing(c.Page == nil, "a page")
	missing(len(c.Listen) > 0 && c.TLS == nil, "certificates to listen on an address")
	missing(len(c.Listen) == 0 && c.Socket == "", "an address or a socket")
	return errors.Join(errs...)
}
