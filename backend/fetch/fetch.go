// Package fetch downloads a file from the public network for somebody who may not reach
// what this machine can.
//
// Invariant: no connection is made to an address that is not public, belongs to a network
// this machine is in, or is a node's. The address is judged when it is connected to, after
// the name was resolved, at every redirect: a name that resolves to something else the
// second time gains nothing. No proxy is used, and nothing of the environment.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"syscall"
	"time"

	"drystone.example/drystone/backend/model"
)

// The bounds of a download.
const (
	maxRedirects = 5
	maxURL       = 2048
	dialTime     = 10 * time.Second
	headTime     = 30 * time.Second
	idleTime     = time.Minute // without a byte
	maxHead      = 64 << 10    // bytes of an answer's header
)

// A Client downloads files. It is safe for concurrent use.
type Client struct {
	http *http.Client
}

// New makes a Client that also refuses the addresses inside lists, which is asked at each
// connection.
func New(inside func() []netip.Prefix) *Client {
	return newClient(func(a netip.Addr) error {
		if err := public(a); err != nil {
			return err
		}
		if slices.ContainsFunc(inside(), func(p netip.Prefix) bool { return p.Contains(a) }) {
			return refused(a)
		}
		return nil
	})
}

func newClient(allowed func(netip.Addr) error) *Client {
	d := net.Dialer{Timeout: dialTime, Control: func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("read address: %w", err)
		}
		return allowed(to.Addr().Unmap().WithZone(""))
	}}
	return &Client{http: &http.Client{
		Transport: &http.Transport{
			Proxy: nil, DialContext: d.DialContext, DisableKeepAlives: true, DisableCompression: true,
			TLSHandshakeTimeout: dialTime, ResponseHeaderTimeout: headTime, MaxResponseHeaderBytes: maxHead,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return model.Errorf(model.Invalid, "the address leads on more than %d times", maxRedirects)
			}
			if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
				return model.Errorf(model.Invalid, "the address leads on to one without TLS")
			}
			return valid(req.URL)
		},
	}}
}

// Inside lists the networks this machine is in.
func Inside() []netip.Prefix {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	}
	var out []netip.Prefix
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}

// special are networks that netip does not know to be other than public.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"), // of providers
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b::/96"), // has an IPv4 address in it, as the next two
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("2002::/16"),
	netip.MustParsePrefix("2001::/32"),
	netip.MustParsePrefix("::/96"),
	netip.MustParsePrefix("fec0::/10"),
}

// public refuses an address that is not one of the public network.
func public(a netip.Addr) error {
	if !a.IsGlobalUnicast() || a.IsPrivate() ||
		slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return refused(a)
	}
	return nil
}

func refused(a netip.Addr) error {
	return model.Errorf(model.Denied, "nothing is fetched from %s: it is not on the public network", a)
}

// valid refuses an address that is not a plain one of the web. It may hold no password:
// addresses are shown.
func valid(u *url.URL) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return model.Errorf(model.Invalid, "images are fetched by http and https only")
	case u.Host == "":
		return model.Errorf(model.Invalid, "the address names no host")
	case u.User != nil:
		return model.Errorf(model.Invalid, "the address may hold no user or password")
	}
	return nil
}

// Open begins to download a file and says how large it is; the caller reads and closes
// the body, which ends with ctx. The code is Denied for an address that nothing is fetched
// from, and Invalid for one that has no file of a known size.
func (c *Client) Open(ctx context.Context, address string) (body io.ReadCloser, size model.Bytes, err error) {
	u, err := url.Parse(address)
	if err != nil || len(address) > maxURL {
		return nil, 0, model.Errorf(model.Invalid, "that is no address of a file")
	}
	if err := valid(u); err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		cancel()
		return nil, 0, model.Errorf(model.Invalid, "that is no address of a file")
	}
	req.Header.Set("User-Agent", "drystone")
	resp, err := c.http.Do(req)
	if err != nil {
		cancel()
		return nil, 0, failure(u, err)
	}
	switch {
	case resp.StatusCode != http.StatusOK:
		err = model.Errorf(model.Invalid, "%s answers %d instead of the file", u.Host, resp.StatusCode)
	case resp.ContentLength <= 0:
		err = model.Errorf(model.Invalid, "%s does not say how large the file is", u.Host)
	}
	if err != nil {
		cancel()
		return nil, 0, errors.Join(err, resp.Body.Close())
	}
	return &patient{body: resp.Body, cancel: cancel, timer: time.AfterFunc(idleTime, cancel)}, model.Bytes(resp.ContentLength), nil
}

// failure says in a sentence why there was no answer, without the rest of the address.
func failure(u *url.URL, err error) error {
	if coded, ok := errors.AsType[*model.Error](err); ok {
		return coded
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	return model.Errorf(model.Unavailable, "%s cannot be reached: %w", u.Host, err)
}

// patient ends a download that stands still.
type patient struct {
	body   io.ReadCloser
	cancel context.CancelFunc
	timer  *time.Timer
}

func (p *patient) Read(b []byte) (int, error) {
	n, err := p.body.Read(b)
	p.timer.Reset(idleTime)
	return n, err //nolint:wrapcheck // it is the body
}

func (p *patient) Close() error {
	p.timer.Stop()
	p.cancel()
	return p.body.Close() //nolint:wrapcheck // it is the body
}
