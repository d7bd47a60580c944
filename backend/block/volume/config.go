package volume

import (
	"errors"
	"log/slog"
	"time"

	"drystone.example/drystone/backend/model"
)

// A Config is what a holder needs. Default fills in what has a default.
type Config struct {
	Disks  Disks
	Record Record
	Lease  Lease
	Log    *slog.Logger

	// Timeout is how long a member may take to answer before it is dropped.
	Timeout time.Duration
	// Grace is how long a member whose node is away is waited for before a
	// substitute is filled with the data it has not got.
	Grace time.Duration
	// FillRate bounds what filling copies for this volume, in bytes a second.
	FillRate model.Bytes
	// TrimRate bounds what is freed of deleted snapshots of this volume, in bytes a
	// second.
	TrimRate model.Bytes
}

// Default returns the timing that production uses.
func Default() Config {
	return Config{
		Log:      slog.Default(),
		Timeout:  3 * time.Second,
		Grace:    10 * time.Minute,
		FillRate: 256 << 20,
		TrimRate: 512 << 20,
	}
}

func (c Config) validate() error {
	var errs []error
	check := func(ok bool, what string) {
		if !ok {
			errs = append(errs, model.Errorf(model.Invalid, "volume config: %s", what))
		}
	}
	check(c.Disks != nil, "Disks is missing")
	check(c.Record != nil, "Record is missing")
	check(c.Lease != nil, "Lease is missing")
	check(c.Log != nil, "Log is missing")
	check(c.Timeout > 0, "Timeout is not positive")
	check(c.Grace >= 0, "Grace is negative")
	check(c.FillRate > 0, "FillRate is not positive")
	check(c.TrimRate > 0, "TrimRate is not positive")
	return errors.Join(errs...)
}
