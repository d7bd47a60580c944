// Package desktop is the desktop app: a window with the same web app that every
// node serves, and a gateway on the loopback interface that carries its requests
// to the clusters over TLS pinned to each cluster's own CA.
//
// With --serve there is no window: the gateway serves the page too, for tests and
// for machines whose webview is too old.
package desktop

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/desktop/gateway"
	"drystone.example/drystone/desktop/store"
	"drystone.example/drystone/desktop/vault"
	"drystone.example/drystone/frontend"
)

type config struct {
	dir        string // of the list of clusters and the vault
	serve      bool
	passphrase model.Secret
	verbose    bool
}

// Run is the whole program. It returns when the window is closed or ctx ends.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	c, err := parse(args, stdout, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	level := slog.LevelInfo
	if c.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	clusters, err := store.Open(ctx, filepath.Join(c.dir, "clusters.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, clusters.Close()) }()
	sessions, err := vault.Open(c.dir, c.passphrase)
	if err != nil {
		return err
	}
	log.Debug("vault", "kind", sessions.Kind())
	g := gateway.Config{Store: clusters, Vault: sessions, Log: log}
	if c.serve {
		return serve(ctx, g, stdout)
	}
	return window(ctx, g, c.dir, log)
}

// parse reads the flags; flag.ErrHelp says that all was said already.
func parse(args []string, stdout, stderr io.Writer) (config, error) {
	var c config
	home, err := os.UserConfigDir()
	if err != nil {
		home = "."
	}
	f := flag.NewFlagSet("drystone-desktop", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&c.dir, "dir", filepath.Join(home, "drystone"), "folder of the list of clusters")
	f.BoolVar(&c.serve, "serve", false, "serve the page on 127.0.0.1 instead of opening a window")
	f.BoolVar(&c.verbose, "verbose", false, "say more on standard error")
	version := f.Bool("version", false, "print the version")
	phrase := f.String("passphrase-file", "",
		"seal the sessions by the passphrase in this file, instead of using the keyring")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if f.NArg() > 0 {
		return c, model.Errorf(model.Invalid, "unexpected argument %q", f.Arg(0))
	}
	if *version {
		if _, err := fmt.Fprintln(stdout, model.Version); err != nil {
			return c, err
		}
		return c, flag.ErrHelp
	}
	if *phrase == "" {
		return c, nil
	}
	text, err := os.ReadFile(*phrase)
	if err != nil {
		return c, fmt.Errorf("read the passphrase: %w", err)
	}
	line := strings.TrimRight(string(text), "\r\n")
	if line == "" {
		return c, model.Errorf(model.Invalid, "the passphrase file is empty")
	}
	c.passphrase = model.NewSecret(line)
	return c, nil
}

// serve runs without a window. It prints one line of JSON with the address to
// open; the launch token stands in the fragment, which a browser never sends.
func serve(ctx context.Context, c gateway.Config, stdout io.Writer) error {
	c.Page = frontend.Handler(frontend.Policy{})
	g, err := gateway.Listen(ctx, c)
	if err != nil {
		return err
	}
	ready := map[string]string{
		"url":     g.URL() + "/#gateway=" + g.Token(),
		"gateway": g.URL(),
		"token":   g.Token(),
	}
	if err := json.NewEncoder(stdout).Encode(ready); err != nil {
		return fmt.Errorf("print the address: %w", err)
	}
	return g.Run(ctx)
}
