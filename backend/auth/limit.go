package auth

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"drystone.example/drystone/backend/model"
)

// A Limiter bounds how often each of many keys (addresses, accounts, sessions)
// may do something. It remembers a bounded number of keys; when there are more,
// the ones idle for longest are forgotten first.
type Limiter struct {
	every rate.Limit
	burst int
	size  int

	// mu guards keys; nothing blocks under it.
	mu   sync.Mutex
	keys map[string]*bucket
}

type bucket struct {
	tokens *rate.Limiter
	used   time.Time
	failed int // in a row
}

// limiterKeys is how many keys a Limiter remembers.
const limiterKeys = 4096

// NewLimiter allows each key n times per interval, and burst times at once.
func NewLimiter(n int, per time.Duration, burst int) *Limiter {
	return &Limiter{
		every: rate.Limit(float64(n) / per.Seconds()),
		burst: burst,
		size:  limiterKeys,
		keys:  map[string]*bucket{},
	}
}

// Allow takes one turn of key. If there is none left it returns a model.Denied
// error that says when there will be.
func (l *Limiter) Allow(key string) error {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(key, now)
	if b.tokens.AllowN(now, 1) {
		return nil
	}
	missing := 1 - b.tokens.TokensAt(now)
	wait := time.Duration(missing / float64(b.tokens.Limit()) * float64(time.Second))
	return &TooOften{Wait: max(wait, time.Second).Round(time.Second)}
}

// Failed makes key slower: every failure beyond the burst, in a row, halves its
// rate, down to one turn in five minutes.
func (l *Limiter) Failed(key string) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(key, now)
	b.failed++
	if b.failed > l.burst {
		slow := max(b.tokens.Limit()/2, rate.Every(slowest))
		b.tokens.SetLimitAt(now, min(slow, l.every))
	}
}

const slowest = 5 * time.Minute

// Succeeded gives key its full rate back.
func (l *Limiter) Succeeded(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.keys, key)
}

// bucket finds or makes the bucket of key. The caller holds mu.
func (l *Limiter) bucket(key string, now time.Time) *bucket {
	b := l.keys[key]
	if b == nil {
		if len(l.keys) >= l.size {
			l.forget(now)
		}
		b = &bucket{tokens: rate.NewLimiter(l.every, l.burst)}
		l.keys[key] = b
	}
	b.used = now
	return b
}

// forget drops the keys idle for longer than the average. The caller holds mu.
func (l *Limiter) forget(now time.Time) {
	var idle time.Duration
	for _, b := range l.keys {
		idle += now.Sub(b.used) / time.Duration(len(l.keys))
	}
	for key, b := range l.keys {
		if now.Sub(b.used) >= idle {
			delete(l.keys, key)
		}
	}
}

// TooOften is the error of a Limiter.
type TooOften struct {
	Wait time.Duration // until the next turn
}

func (e *TooOften) Error() string {
	return "too many attempts; try again in " + e.Wait.String()
}

// Unwrap gives the error its code.
func (e *TooOften) Unwrap() error { return &model.Error{Code: model.Denied, Text: e.Error()} }
