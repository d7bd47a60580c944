package meta

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// quiet is how long a message of raft is not repeated.
const quiet = 30 * time.Second

// A logger gives raft's messages to slog, one step less loud than raft thinks
// they are, and each at most once in a while: what a partition makes raft say
// several times a second is news once.
type logger struct {
	hclog.Logger // what is not said below is not said

	mu   sync.Mutex // guards last
	last map[string]time.Time
}

func newLogger() *logger {
	return &logger{Logger: hclog.NewNullLogger(), last: map[string]time.Time{}}
}

// Error implements hclog.Logger.
func (l *logger) Error(msg string, args ...any) { l.say(slog.LevelWarn, msg, args) }

// Warn implements hclog.Logger.
func (l *logger) Warn(msg string, args ...any) { l.say(slog.LevelInfo, msg, args) }

// Info implements hclog.Logger.
func (l *logger) Info(msg string, args ...any) { l.say(slog.LevelDebug, msg, args) }

// With implements hclog.Logger: the arguments are not kept.
func (l *logger) With(...any) hclog.Logger { return l }

// Named implements hclog.Logger: the name is not kept.
func (l *logger) Named(string) hclog.Logger { return l }

func (l *logger) say(level slog.Level, msg string, args []any) {
	if !slog.Default().Enabled(context.Background(), level) || !l.fresh(msg) {
		return
	}
	var details []string
	for i := 0; i+1 < len(args); i += 2 {
		details = append(details, fmt.Sprintf("%v=%v", args[i], args[i+1]))
	}
	slog.Log(context.Background(), level, "raft", "event", msg, "details", strings.Join(details, " "))
}

// fresh reports whether a message was not said lately. Raft's messages are
// constants, so there are few.
func (l *logger) fresh(msg string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if at, said := l.last[msg]; said && now.Sub(at) < quiet {
		return false
	}
	l.last[msg] = now
	return true
}
