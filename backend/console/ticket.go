package console

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"sync"
	"time"

	"drystone.example/drystone/backend/model"
)

// A Kind is what of a machine is shown.
type Kind string

// The kinds, complete.
const (
	Screen Kind = "screen" // and keyboard and pointer, in the RFB (VNC) protocol
	Serial Kind = "serial" // the first serial port
)

// A Mode is what is asked for.
type Mode string

// The modes, complete.
const (
	Use   Mode = "use"   // write, if nobody else does, and watch otherwise
	Watch Mode = "watch" // only watch
	Take  Mode = "take"  // write, and end the console of who did
)

// The bounds of tickets.
const (
	TicketLife = 30 * time.Second
	maxTickets = 1024
)

// A Bearer is who a ticket is for, and who comes with one.
type Bearer struct {
	User    model.UserID `json:"user"`
	Name    string       `json:"name"`
	Session string       `json:"session"` // its digest; empty for root of a node
}

// An Ask is a wish for a console.
type Ask struct {
	VM   model.VMID `json:"vm"`
	Kind Kind       `json:"kind"`
	Mode Mode       `json:"mode"`
	By   Bearer     `json:"by"`
}

func (a Ask) validate() error {
	switch {
	case a.Kind != Screen && a.Kind != Serial:
		return model.Errorf(model.Invalid, "a machine has no console of the kind %q", a.Kind)
	case a.Mode != Use && a.Mode != Watch && a.Mode != Take:
		return model.Errorf(model.Invalid, "a console is not opened in the mode %q", a.Mode)
	}
	return nil
}

// A Ticket opens one console. Its text is a secret until it is used.
type Ticket struct {
	Text    string    `json:"text"`
	Expires time.Time `json:"expires"`
}

// A Hello is what a Line begins with: a ticket, and who presents it for what.
type Hello struct {
	Ticket string     `json:"ticket"`
	VM     model.VMID `json:"vm"`
	Kind   Kind       `json:"kind"`
	By     Bearer     `json:"by"`
}

// tickets are those that were made and not yet used. Only digests are kept. The
// zero tickets is ready.
type tickets struct {
	mu      sync.Mutex // guards pending; nothing blocks under it
	pending map[[sha256.Size]byte]pending
}

type pending struct {
	ask     Ask
	expires time.Time
}

func (t *tickets) issue(a Ask) (Ticket, error) {
	var b [32]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	text := base64.RawURLEncoding.EncodeToString(b[:])
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for digest, old := range t.pending {
		if !now.Before(old.expires) {
			delete(t.pending, digest)
		}
	}
	if len(t.pending) >= maxTickets {
		return Ticket{}, model.Errorf(model.Unavailable, "too many consoles are being opened; try again soon")
	}
	if t.pending == nil {
		t.pending = map[[sha256.Size]byte]pending{}
	}
	expires := now.Add(TicketLife)
	t.pending[sha256.Sum256([]byte(text))] = pending{a, expires}
	return Ticket{text, expires}, nil
}

// redeem takes a ticket: whatever comes of it, it is used up. It is found by its
// digest, so that the time it takes tells nothing about tickets that there are.
func (t *tickets) redeem(h Hello) (Ask, error) {
	digest := sha256.Sum256([]byte(h.Ticket))
	t.mu.Lock()
	p, ok := t.pending[digest]
	delete(t.pending, digest)
	t.mu.Unlock()
	switch {
	case !ok || !time.Now().Before(p.expires):
		return Ask{}, model.Errorf(model.Unknown, "the ticket is used up or has run out; ask for another one")
	case p.ask.VM != h.VM || p.ask.Kind != h.Kind:
		return Ask{}, model.Errorf(model.Denied, "the ticket is for another console")
	case p.ask.By.User != h.By.User || p.ask.By.Session != h.By.Session:
		return Ask{}, model.Errorf(model.Denied, "the ticket is for another session")
	}
	return p.ask, nil
}
