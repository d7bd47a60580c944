package volume

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// While raft does not answer, a holder that wants the record changed asks again and again,
// and says so once; when it was answered, the next time is news.
func TestUnansweredProposalIsSaidOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		t.Helper()
		r := newRig(t, 2, 2, 16<<20, []int{0, 1})
		var said bytes.Buffer
		r.cfg.Log = slog.New(slog.NewTextHandler(&said, nil))
		g := r.gates()
		v := r.open(t)
		for times := range 2 {
			g[2].close()
			r.record.setHang(true)
			w := beginWrite(t, v, 0, pattern(4096, 0, uint64(times)))
			w.wantOpen(t, time.Minute, "though nobody dropped the silent member")
			r.record.setHang(false)
			w.want(t, 20*time.Second)
			g[2].open()
			r.whole(t)
		}
		r.close(t, v)
		if n := strings.Count(said.String(), "members not changed"); n != 2 {
			t.Errorf("twice there was no answer for a minute, and that was said %d times:\n%s", n, said.String())
		}
	})
}
