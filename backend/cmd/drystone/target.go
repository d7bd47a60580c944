package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/client"
	"drystone.example/drystone/backend/model"
)

// systemSocket is where the daemon of this machine answers.
const systemSocket = "/var/lib/drystone/run/api.sock"

// askTime bounds the question whether a node answers at all.
const askTime = 3 * time.Second

// A target says which cluster the commands are for.
type target struct {
	dir       string
	server    string
	ca        string
	tokenFile string
}

func (t *target) flags(f *pflag.FlagSet, dir string) {
	f.StringVar(&t.dir, "dir", dir, "folder of a development cluster (default $DRYSTONE_DIR)")
	f.StringVar(&t.server, "server", "", "host[:port] of a node, to speak to it from afar")
	f.StringVar(&t.ca, "ca", "", "file with the cluster's certificate, for --server")
	f.StringVar(&t.tokenFile, "token-file", "", "file with the token that drystone login wrote, for --server")
}

func (t *target) check() error {
	switch {
	case t.server == "" && (t.ca != "" || t.tokenFile != ""):
		return usagef("--ca and --token-file go with --server")
	case t.server != "" && t.ca == "":
		return usagef("--server needs --ca, the file with the cluster's certificate")
	case t.server != "" && t.tokenFile == "":
		return usagef("--server needs --token-file")
	}
	return nil
}

// address is --server with the port that nodes have.
func (t *target) address() string {
	if strings.Contains(strings.TrimPrefix(t.server, "["), ":") && !strings.HasSuffix(t.server, "]") {
		return t.server
	}
	return t.server + ":8443"
}

// open returns a client of a node that answers.
func (t *target) open(ctx context.Context) (*client.Client, error) {
	switch {
	case t.server != "":
		token, err := t.token()
		if err != nil {
			return nil, err
		}
		return t.remote(token)
	case t.dir != "":
		return t.anyOf(ctx)
	}
	return local(systemSocket)
}

// remote is a client of --server with a token, or with none to log in.
func (t *target) remote(token model.Secret) (*client.Client, error) {
	ca, err := os.ReadFile(t.ca)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's certificate: %w", err)
	}
	return client.TLS(t.address(), ca, token)
}

func (t *target) token() (model.Secret, error) {
	text, err := os.ReadFile(t.tokenFile)
	if errors.Is(err, os.ErrNotExist) {
		return model.Secret{}, model.Errorf(model.Unknown, "%s is not there; run drystone login first", t.tokenFile)
	}
	if err != nil {
		return model.Secret{}, fmt.Errorf("read the token: %w", err)
	}
	return model.NewSecret(strings.TrimSpace(string(text))), nil
}

// local is a client of a socket, which only root may open.
func local(socket string) (*client.Client, error) {
	_, err := os.Stat(socket)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, model.Errorf(model.Unavailable,
			"no node runs here (%s is missing); name a cluster with --dir or --server", socket)
	case errors.Is(err, os.ErrPermission):
		return nil, model.Errorf(model.Denied, "only root may use %s; become root, or use --server", socket)
	case err != nil:
		return nil, fmt.Errorf("look for the node's socket: %w", err)
	}
	return client.Unix(socket), nil
}

// clusterFile is what is needed of DIR/cluster.json.
type clusterFile struct {
	Nodes []clusterNode `json:"nodes"`
}

type clusterNode struct {
	Name string `json:"name"`
	ID   string `json:"id"`
	Dir  string `json:"dir"`
}

func (n clusterNode) socket() string { return filepath.Join(n.Dir, "run", "api.sock") }

func (t *target) cluster() (c clusterFile, err error) {
	path := filepath.Join(t.dir, "cluster.json")
	text, err := os.ReadFile(path) //nolint:gosec // the caller names it
	if errors.Is(err, os.ErrNotExist) {
		return c, model.Errorf(model.NotFound,
			"there is no development cluster in %s; start one with drystone dev up --dir %s", t.dir, t.dir)
	}
	if err != nil {
		return c, fmt.Errorf("read the development cluster: %w", err)
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return c, fmt.Errorf("read %s: %w", path, err)
	}
	for i, n := range c.Nodes {
		if !filepath.IsAbs(n.Dir) {
			c.Nodes[i].Dir = filepath.Join(t.dir, n.Dir)
		}
	}
	return c, nil
}

// anyOf asks all nodes of a development cluster at once and takes the first in
// order that knows a leader, or else the first that answers.
func (t *target) anyOf(ctx context.Context) (*client.Client, error) {
	c, err := t.cluster()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	health := make([]chan string, len(c.Nodes))
	for i, n := range c.Nodes {
		health[i] = make(chan string, 1)
		go func() { health[i] <- ask(ctx, n) }() // ends with ctx, at the latest
	}
	var second *client.Client
	for i, n := range c.Nodes {
		switch status := <-health[i]; {
		case status == "":
		case status != schema.HealthUnavailable:
			return client.Unix(n.socket()), nil
		case second == nil:
			second = client.Unix(n.socket())
		}
	}
	if second != nil {
		return second, nil
	}
	return nil, model.Errorf(model.Unavailable,
		"no node of the cluster in %s answers; see drystone dev start NODE --dir %s", t.dir, t.dir)
}

// ask is a node's health, or empty if it does not answer.
func ask(ctx context.Context, n clusterNode) string {
	c := client.Unix(n.socket())
	defer c.Close()
	h, err := c.Health(ctx)
	if err != nil {
		return ""
	}
	return h.Status
}

// node returns a client of one node's own socket, by name or identifier.
func (t *target) node(ref string) (*client.Client, error) {
	if t.dir == "" {
		return nil, usagef("--node needs --dir; without it, run the command on that node")
	}
	c, err := t.cluster()
	if err != nil {
		return nil, err
	}
	for _, n := range c.Nodes {
		if strings.EqualFold(n.Name, ref) || n.ID == ref {
			return local(n.socket())
		}
	}
	return nil, model.Errorf(model.NotFound, "there is no node %q in %s", ref, t.dir)
}
