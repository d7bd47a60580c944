package gossip

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"time"
)

// A logWriter takes the log lines of serf and memberlist. What they call errors
// is worth a warning, but not more often than warnEvery, since a stranger's
// packets can cause them. Everything else (nodes that come and go, probes that
// were lost) is in the view, or only for debugging.
type logWriter struct {
	mu   sync.Mutex
	next time.Time // of a warning
}

const warnEvery = 30 * time.Second

func (w *logWriter) Write(p []byte) (int, error) {
	line := bytes.TrimSpace(p)
	level := slog.LevelDebug
	if bytes.Contains(line, []byte("[ERR]")) && !expected(line) && w.due() {
		level = slog.LevelWarn
	}
	if i := bytes.IndexByte(line, ']'); i > 0 { // cut date and level
		line = bytes.TrimSpace(line[i+1:])
	}
	slog.Log(context.Background(), level, "gossip library says", "text", string(line))
	return len(p), nil
}

func (w *logWriter) due() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if now.Before(w.next) {
		return false
	}
	w.next = now.Add(warnEvery)
	return true
}

// expected says of an error line that it only means that a peer is not there,
// which the view tells better.
func expected(line []byte) bool {
	for _, s := range []string{
		"Push/Pull with", "Failed fallback TCP ping", "Failed to send", "failed to receive",
		"Failed to forward ack", "Failed to push local state", "Failed to read remote state",
	} {
		if bytes.Contains(line, []byte(s)) {
			return true
		}
	}
	return false
}
