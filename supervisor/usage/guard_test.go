package usage

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/supervisor/process"
)

// guarded is a guard of the worker of a world with the limit 100.
type guarded struct {
	*Guard
	restarts []int64
	log      bytes.Buffer
}

func guard(w *world) *guarded {
	g := &guarded{}
	g.Guard = NewGuard(w.meter(), func() []Limited {
		return []Limited{{
			Worker: "worker-0", Unit: "worker", Limit: 100,
			Restart: func(_ context.Context, resident int64) bool {
				g.restarts = append(g.restarts, resident)
				return true
			},
		}}
	}, slog.New(slog.NewTextHandler(&g.log, nil)))
	return g
}

func grown(resident int64) process.Resources {
	return process.Resources{Processes: 1, Resident: resident}
}

// Two readings count only if they are in a row, and of one process.
func TestGuardCountsReadingsOfOneProcessInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		g := guard(w)
		for i, reading := range []struct {
			token string
			used  process.Resources
			want  int // restarts
		}{
			{"a", grown(101), 0},
			{"b", grown(102), 0}, // another process
			{"b", grown(100), 0},
			{"b", grown(103), 0},
			{"b", process.Resources{}, 0}, // it cannot be seen
			{"b", grown(104), 0},
			{"b", grown(105), 1},
		} {
			time.Sleep(interval)
			w.token, w.used = reading.token, reading.used
			g.check(t.Context())
			if len(g.restarts) != reading.want {
				t.Errorf("reading %d: restarts %v, want %d", i, g.restarts, reading.want)
			}
		}
		if len(g.restarts) == 1 && g.restarts[0] != 105 {
			t.Errorf("restarted for %d, want the last reading", g.restarts[0])
		}
	})
}

// A reading that fails is logged once, and is no reading below the limit.
func TestGuardSurvivesFailedReadings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{used: grown(101)}
		g := guard(w)
		check := func(err error, restarts, logged int) {
			t.Helper()
			time.Sleep(interval)
			w.err = err
			g.check(t.Context())
			n := strings.Count(g.log.String(), `level=WARN msg="memory of workers not read" error=`)
			if len(g.restarts) != restarts || n != logged {
				t.Errorf("restarts %v, want %d; %d lines, want %d", g.restarts, restarts, n, logged)
			}
		}
		broken := errors.New("no /proc")
		check(nil, 0, 0)
		check(broken, 0, 1)
		check(broken, 0, 1)
		check(nil, 1, 1)
		check(broken, 1, 2)
	})
}
