package auth

import (
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"drystone.example/drystone/backend/model"
)

func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(5, time.Minute, 5)
		turns := func(key string) (n int) {
			for l.Allow(key) == nil {
				n++
			}
			return n
		}
		if n := turns("kim"); n != 5 {
			t.Errorf("at once: %d turns, want 5", n)
		}
		err := l.Allow("kim")
		var often *TooOften
		if !errors.As(err, &often) || model.CodeOf(err) != model.Denied || often.Wait != 12*time.Second {
			t.Errorf("Allow = %v, want TooOften for 12s", err)
		}
		if n := turns("lee"); n != 5 {
			t.Errorf("another key: %d turns, want 5", n)
		}
		time.Sleep(often.Wait)
		if n := turns("kim"); n != 1 {
			t.Errorf("after the wait: %d turns, want 1", n)
		}
	})
}

// Who goes on failing has to wait longer and longer, up to five minutes; who
// succeeds starts anew.
func TestLimiterSlowsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(5, time.Minute, 5)
		var waits []time.Duration
		for range 16 {
			for {
				err := l.Allow("kim")
				if err == nil {
					break
				}
				var often *TooOften
				if !errors.As(err, &often) {
					t.Fatalf("Allow = %v", err)
				}
				waits = append(waits, often.Wait)
				time.Sleep(often.Wait)
			}
			l.Failed("kim")
		}
		for i := 1; i < len(waits); i++ {
			if waits[i] < waits[i-1] {
				t.Errorf("waits %v shrink", waits)
			}
		}
		if last := waits[len(waits)-1]; last != slowest {
			t.Errorf("the last wait is %v, want %v", last, slowest)
		}
		l.Succeeded("kim")
		if err := l.Allow("kim"); err != nil {
			t.Errorf("after success: %v", err)
		}
	})
}

func TestLimiterForgetsTheIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(1, time.Hour, 1)
		for i := range limiterKeys {
			time.Sleep(time.Millisecond)
			if err := l.Allow(strconv.Itoa(i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Allow("one more"); err != nil {
			t.Fatal(err)
		}
		if n := len(l.keys); n > limiterKeys*3/4 {
			t.Errorf("%d keys are kept", n)
		}
		if err := l.Allow(strconv.Itoa(limiterKeys - 1)); err == nil {
			t.Error("a key just used was forgotten")
		}
	})
}
