// Package client speaks to a node's API: over its UNIX socket as root, or over
// TLS with the cluster's CA pinned and a token.
//
// An error the API answered is a *model.Error with the API's code; one that kept
// the API from answering (no route, refused, not a node) has model.Unavailable. No
// error holds a token or a password. A Client may be used by many goroutines.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"drystone.example/drystone/backend/api/schema"
	"drystone.example/drystone/backend/model"
	"drystone.example/drystone/backend/pki"
)

const (
	base        = "/api/v1"
	dialTimeout = 5 * time.Second

	// maxAnswer bounds what is read of an answer.
	maxAnswer = 64 << 20
)

// A Client is one node's API.
type Client struct {
	where string // for people
	url   string // without a path
	token model.Secret
	dial  func(ctx context.Context, network, address string) (net.Conn, error)
	tls   *tls.Config
	http  *http.Client
}

// Unix makes a Client of a node's own socket. Whoever is root is the owner there.
func Unix(path string) *Client {
	c := &Client{where: path, url: "http://node"}
	c.dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		d := net.Dialer{Timeout: dialTimeout}
		return d.DialContext(ctx, "unix", path)
	}
	return c.ready()
}

// TLS makes a Client of a node at an address (host:port) that has a certificate
// of one of the authorities in ca (PEM), or of one that they vouch for, and of no other.
// The token may be empty, for what needs no log-in.
func TLS(address string, ca []byte, token model.Secret) (*Client, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, model.Errorf(model.Invalid, "%q is not an address of the form host:port", address)
	}
	config, err := pki.RootsTLS(ca, host)
	if err != nil {
		return nil, model.Errorf(model.Invalid, "the certificate file of the cluster holds no certificate")
	}
	return WithTLS(address, config, token), nil
}

// WithTLS is TLS for who verifies the node's certificate in another way.
func WithTLS(address string, config *tls.Config, token model.Secret) *Client {
	c := &Client{where: address, url: "https://" + address, token: token, tls: config}
	c.dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
	return c.ready()
}

func (c *Client) ready() *Client {
	c.http = &http.Client{
		Transport: &http.Transport{
			DialContext:         c.dial,
			TLSClientConfig:     c.tls,
			TLSHandshakeTimeout: dialTimeout,
			ForceAttemptHTTP2:   false,
			MaxIdleConnsPerHost: 4,
			IdleConnTimeout:     time.Minute,
		},
		// The API never sends elsewhere; following would carry the token there.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// WithToken is the same node for somebody else.
func (c *Client) WithToken(token model.Secret) *Client {
	other := *c
	other.token = token
	return &other
}

// Close lets idle connections go.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Where says in a few words which node this is, for messages.
func (c *Client) Where() string { return c.where }

// request makes a request; in is its JSON body, or nil.
func (c *Client) request(ctx context.Context, method, path string, in any) (*http.Request, error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url+base+path, body)
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token := c.token.Reveal(); token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return req, nil
}

// send returns an answer of success, whose body the caller closes.
func (c *Client) send(req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(req.Context(), err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		err := c.problem(resp)
		return nil, errors.Join(err, resp.Body.Close())
	}
	return resp, nil
}

// unreachable is the error of a request that was not answered.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("ask the node at %s: %w", c.where, ctx.Err())
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // without the address, which is said anyway
	}
	return model.Errorf(model.Unavailable, "the node at %s cannot be reached: %w", c.where, err)
}

// problem reads a refusal.
func (c *Client) problem(resp *http.Response) error {
	var p schema.Problem
	media := resp.Header.Get("Content-Type")
	err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&p)
	if err != nil || p.Code == "" || !strings.HasPrefix(media, schema.ProblemType) {
		return model.Errorf(model.Unavailable, "what answers at %s is not a node of Drystone (status %d)",
			c.where, resp.StatusCode)
	}
	return &model.Error{Code: p.Code, Text: p.Detail}
}

// call sends a request and reads its JSON answer into out, unless that is nil.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	req, err := c.request(ctx, method, path, in)
	if err != nil {
		return err
	}
	resp, err := c.send(req)
	if err != nil {
		return err
	}
	defer letGo(resp.Body)
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil {
		return c.garbled(ctx, err)
	}
	return nil
}

func (c *Client) garbled(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("read the answer of %s: %w", c.where, ctx.Err())
	}
	return model.Errorf(model.Unavailable, "the answer of the node at %s broke off: %w", c.where, err)
}

// get fetches one object.
func get[T any](ctx context.Context, c *Client, path string) (out T, err error) {
	return out, c.call(ctx, http.MethodGet, path, nil, &out)
}

// post sends one object and fetches another.
func post[T any](ctx context.Context, c *Client, path string, in any) (out T, err error) {
	return out, c.call(ctx, http.MethodPost, path, in, &out)
}

func (c *Client) remove(ctx context.Context, path string) error {
	return c.call(ctx, http.MethodDelete, path, nil, nil)
}

// letGo closes what was only read.
func letGo(c io.Closer) { _ = c.Close() }

// at joins a path; what people typed is escaped.
func at(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString("/" + url.PathEscape(p))
	}
	return b.String()
}
