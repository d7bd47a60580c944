package console

import (
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/model"
)

var (
	kim = Bearer{User: 2, Name: "kim", Session: "s2"}
	lee = Bearer{User: 3, Name: "lee", Session: "s3"}
)

// A ticket is good for 30 seconds, once, for what and whom it was made; what is
// presented wrongly is used up too.
func TestTickets(t *testing.T) {
	ask := Ask{VM: 7, Kind: Screen, Mode: Use, By: kim}
	for name, tt := range map[string]struct {
		after  time.Duration
		change func(*Hello)
		want   model.Code
	}{
		"in time":           {after: TicketLife - time.Second},
		"too late":          {after: TicketLife, want: model.Unknown},
		"guessed":           {change: func(h *Hello) { h.Ticket = "what nobody issued" }, want: model.Unknown},
		"of nothing":        {change: func(h *Hello) { h.Ticket = "" }, want: model.Unknown},
		"other machine":     {change: func(h *Hello) { h.VM = 8 }, want: model.Denied},
		"other kind":        {change: func(h *Hello) { h.Kind = Serial }, want: model.Denied},
		"other user":        {change: func(h *Hello) { h.By = lee }, want: model.Denied},
		"other session":     {change: func(h *Hello) { h.By.Session = "s4" }, want: model.Denied},
		"no session at all": {change: func(h *Hello) { h.By.Session = "" }, want: model.Denied},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var k tickets
				made, err := k.issue(ask)
				if err != nil || time.Until(made.Expires) != TicketLife || len(made.Text) < 43 {
					t.Fatalf("issue: %v, %d bytes for %v", err, len(made.Text), time.Until(made.Expires))
				}
				time.Sleep(tt.after)
				right := Hello{Ticket: made.Text, VM: 7, Kind: Screen, By: kim}
				h := right
				if tt.change != nil {
					tt.change(&h)
				}
				got, err := k.redeem(h)
				if (err == nil) != (tt.want == "") || err != nil && model.CodeOf(err) != tt.want {
					t.Fatalf("redeem = %v, want %q", err, tt.want)
				}
				if err == nil && got != ask {
					t.Errorf("redeem = %+v, want %+v", got, ask)
				}
				if h.Ticket != right.Ticket {
					return
				}
				if _, err := k.redeem(right); model.CodeOf(err) != model.Unknown {
					t.Errorf("redeem again = %v", err)
				}
			})
		})
	}
}

// Tickets that nobody uses take bounded memory, and make room as they run out.
func TestTicketsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k tickets
		for range maxTickets {
			if _, err := k.issue(Ask{}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := k.issue(Ask{}); model.CodeOf(err) != model.Unavailable {
			t.Errorf("one too many: %v", err)
		}
		time.Sleep(TicketLife)
		if _, err := k.issue(Ask{}); err != nil || len(k.pending) != 1 {
			t.Errorf("after they ran out: %v, %d are kept", err, len(k.pending))
		}
	})
}
