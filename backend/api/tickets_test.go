package api

import (
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/model"
)

func TestTicketsRunOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k tickets
		issue := func() string {
			t.Helper()
			text, expires, err := k.issue(call{session: "s"}, 7)
			if err != nil || time.Until(expires) != ticketLife {
				t.Fatalf("issue: %v, for %v", err, time.Until(expires))
			}
			return text
		}
		first, second := issue(), issue()
		time.Sleep(ticketLife - time.Second)
		if got, err := k.redeem(first); err != nil || got.vm != 7 || got.call.session != "s" {
			t.Errorf("redeem in time: %+v, %v", got, err)
		}
		time.Sleep(time.Second)
		if _, err := k.redeem(second); model.CodeOf(err) != model.Unknown {
			t.Errorf("redeem too late: %v", err)
		}
		if _, err := k.redeem("what nobody issued"); model.CodeOf(err) != model.Unknown {
			t.Errorf("redeem of nothing: %v", err)
		}
	})
}

// Tickets that nobody uses take bounded memory, and make room as they run out.
func TestTicketsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k tickets
		for range maxTickets {
			if _, _, err := k.issue(call{}, 7); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := k.issue(call{}, 7); model.CodeOf(err) != model.Unavailable {
			t.Errorf("one too many: %v", err)
		}
		time.Sleep(ticketLife)
		if _, _, err := k.issue(call{}, 7); err != nil || len(k.pending) != 1 {
			t.Errorf("after they ran out: %v, %d are kept", err, len(k.pending))
		}
	})
}
