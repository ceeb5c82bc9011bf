//go:build go1.25

//go:debug asynctimerchan=0

package domain_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-core/go/domain"
	"github.com/core-tools/hsu-core/go/logging"
)

// unit is a Contract that fails until its nth Ping (always, if n is 0) and records the time of each.
type unit struct {
	succeedAt int
	ping      func(ctx context.Context) error // replaces the unit's own error
	asked     []time.Time
}

func (u *unit) Ping(ctx context.Context) error {
	u.asked = append(u.asked, time.Now())
	if len(u.asked) == u.succeedAt {
		return nil
	}
	if u.ping != nil {
		return u.ping(ctx)
	}
	return fmt.Errorf("failure %d", len(u.asked))
}

func (u *unit) pauses() []time.Duration {
	var pauses []time.Duration
	for i := 1; i < len(u.asked); i++ {
		pauses = append(pauses, u.asked[i].Sub(u.asked[i-1]))
	}
	return pauses
}

var silent = logging.NewLogger("", logging.LogFuncs{})

func TestDefaultHandlerAnswers(t *testing.T) {
	for _, logger := range []logging.Logger{silent, nil} {
		if err := domain.NewDefaultHandler(logger).Ping(t.Context()); err != nil {
			t.Errorf("Ping = %v, want nil", err)
		}
	}
}

func TestRetryPingPauses(t *testing.T) {
	const s = time.Second
	for _, c := range []struct {
		name     string
		interval time.Duration
		attempts int
		want     []time.Duration
	}{
		{"doubles", 100 * time.Millisecond, 5, []time.Duration{s / 10, s / 5, 2 * s / 5, 4 * s / 5}},
		{"capped", s, 8, []time.Duration{1 * s, 2 * s, 4 * s, 8 * s, 10 * s, 10 * s, 10 * s}},
		{"longer than the cap", time.Minute, 4, []time.Duration{60 * s, 60 * s, 60 * s}},
		{"none", 0, 3, []time.Duration{0, 0}},
		{"negative", -s, 3, []time.Duration{0, 0}},
		{"one attempt", s, 1, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u, start := &unit{}, time.Now()
				err := domain.RetryPing(t.Context(), u, domain.RetryPingOptions{
					RetryAttempts: c.attempts, RetryInterval: c.interval,
				}, silent)
				if err == nil {
					t.Error("err = nil though no ping was answered")
				}
				if got := u.pauses(); !slices.Equal(got, c.want) {
					t.Errorf("pauses = %v, want %v", got, c.want)
				}
				if took, last := time.Since(start), u.asked[len(u.asked)-1].Sub(start); took != last {
					t.Errorf("returned %v after the start, want at once after the last ping at %v", took, last)
				}
			})
		})
	}
}

// Doubled, this interval is negative, which would mean no pause.
func TestRetryPingIntervalDoesNotOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const year = 365 * 24 * time.Hour
		ctx, cancel := context.WithTimeout(t.Context(), 200*year)
		defer cancel()
		u := &unit{}
		options := domain.RetryPingOptions{RetryAttempts: 10, RetryInterval: math.MaxInt64/2 + 1} // 146 years
		if err := domain.RetryPing(ctx, u, options, silent); !errors.Is(err, context.DeadlineExceeded) ||
			len(u.asked) != 2 {
			t.Errorf("err = %v after %d pings, want the deadline after 2", err, len(u.asked))
		}
	})
}

func TestRetryPingRetriesEveryFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failures := []error{
			errors.New("connection refused"), errors.New("%s"), context.DeadlineExceeded, context.Canceled,
			errors.New("permission denied"),
		}
		u := &unit{succeedAt: len(failures) + 1}
		u.ping = func(context.Context) error { return failures[len(u.asked)-1] }
		options := domain.RetryPingOptions{RetryAttempts: 30, RetryInterval: time.Second}
		if err := domain.RetryPing(t.Context(), u, options, nil); err != nil {
			t.Errorf("err = %v, want nil", err)
		}
		if len(u.asked) != u.succeedAt {
			t.Errorf("%d pings, want %d", len(u.asked), u.succeedAt)
		}
	})
}

func TestRetryPingReportsTheLastFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		last := errors.New("the last")
		u := &unit{ping: func(context.Context) error { return last }}
		err := domain.RetryPing(t.Context(), u, domain.RetryPingOptions{
			RetryAttempts: 3, RetryInterval: time.Second,
		}, silent)
		if !errors.Is(err, last) {
			t.Errorf("err = %v, want one that wraps %q", err, last)
		}
	})
}

func TestRetryPingWithoutAttempts(t *testing.T) {
	for _, attempts := range []int{0, -1} {
		u := &unit{succeedAt: 1}
		if err := domain.RetryPing(t.Context(), u,
			domain.RetryPingOptions{RetryAttempts: attempts}, silent); err == nil {
			t.Errorf("RetryAttempts %d: err = nil without a success", attempts)
		}
		if len(u.asked) != 0 {
			t.Errorf("RetryAttempts %d: %d pings", attempts, len(u.asked))
		}
	}
}

func TestRetryPingStopsAtOnceWithItsContext(t *testing.T) {
	options := domain.RetryPingOptions{RetryAttempts: 30, RetryInterval: time.Hour}

	t.Run("while it waits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
			defer cancel()
			failure := errors.New("refused")
			u, start := &unit{ping: func(context.Context) error { return failure }}, time.Now()
			err := domain.RetryPing(ctx, u, options, silent)
			if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, failure) {
				t.Errorf("err = %v, want one that wraps both the deadline and the last failure", err)
			}
			if took := time.Since(start); took != 90*time.Second || len(u.asked) != 1 {
				t.Errorf("returned after %v and %d pings, want 90s and 1", took, len(u.asked))
			}
		})
	})
	t.Run("while it pings", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Minute, cancel)
			u, start := &unit{ping: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}, time.Now()
			err := domain.RetryPing(ctx, u, options, silent)
			if took := time.Since(start); !errors.Is(err, context.Canceled) ||
				took != time.Minute || len(u.asked) != 1 {
				t.Errorf("err = %v after %v and %d pings, want it canceled after 1m0s and 1", err, took, len(u.asked))
			}
		})
	})
	t.Run("before it begins", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		u := &unit{succeedAt: 1}
		if err := domain.RetryPing(ctx, u, options, silent); !errors.Is(err, context.Canceled) || len(u.asked) != 0 {
			t.Errorf("err = %v after %d pings, want it canceled after none", err, len(u.asked))
		}
	})
}
