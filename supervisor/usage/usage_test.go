package usage

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// world is one worker with its process.
type world struct {
	token    string
	used     process.Resources
	err      error
	readings int
	takes    time.Duration // of a reading
}

func (w *world) meter() *Meter {
	return NewMeter(func() []launcher.Subject {
		return []launcher.Subject{{Worker: "worker-0", Instance: records.Instance{Token: w.token}}}
	}, func(ctx context.Context, subjects []launcher.Subject) ([]process.Resources, error) {
		w.readings++
		select {
		case <-time.After(w.takes):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		used := make([]process.Resources, len(subjects))
		for i := range used {
			used[i] = w.used
		}
		return used, w.err
	})
}

// read returns the usage of the worker, and whether it is known.
func read(t *testing.T, m *Meter) (Usage, bool) {
	t.Helper()
	used, err := m.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	u, known := used["worker-0"]
	return u, known
}

func TestOneReadingServesAllWhoAskWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{used: process.Resources{Processes: 1}, takes: 20 * time.Millisecond}
		m := w.meter()
		var asking sync.WaitGroup
		for range 10 {
			asking.Go(func() {
				if _, known := read(t, m); !known {
					t.Error("it is not known")
				}
			})
		}
		asking.Wait()
		time.Sleep(fresh - time.Millisecond)
		read(t, m)
		if w.readings != 1 {
			t.Errorf("%d readings, want 1", w.readings)
		}
		time.Sleep(time.Millisecond)
		read(t, m)
		if w.readings != 2 {
			t.Errorf("%d readings after a second, want 2", w.readings)
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if w.readings != 2 {
			t.Errorf("%d readings that nobody asked for", w.readings-2)
		}
	})
}

func TestShareIsThatSinceTheLastReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{used: process.Resources{Processes: 1, CPU: time.Hour}}
		m := w.meter()
		if u, _ := read(t, m); u.Window != 0 || u.CPU != time.Hour {
			t.Errorf("first: %+v, want no share", u)
		}
		for _, step := range []struct {
			passed, cpu, total time.Duration
			share              float64
		}{
			{4 * time.Second, time.Hour + time.Second, time.Hour + time.Second, 0.25},
			// A member ended, and its parent has reaped it only at the next reading.
			{4 * time.Second, time.Minute, time.Hour + time.Second, 0},
			{4 * time.Second, time.Hour + 9*time.Second, time.Hour + 9*time.Second, 2},
		} {
			time.Sleep(step.passed)
			w.used.CPU = step.cpu
			if u, _ := read(t, m); u.CPU != step.total || u.Share != step.share || u.Window != step.passed {
				t.Errorf("after %s: %+v, want %+v", step.passed, u, step)
			}
		}
		time.Sleep(longestWindow + time.Second)
		if u, _ := read(t, m); u.Window != 0 || u.CPU != time.Hour+9*time.Second {
			t.Errorf("long after: %+v, want no share", u)
		}
	})
}

// What one process has used is never shown of the next one.
func TestUsageIsOfThePresentInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{token: "first", used: process.Resources{Processes: 1, CPU: time.Hour}}
		m := w.meter()
		read(t, m)
		w.token, w.used.CPU = "second", time.Second
		if u, known := read(t, m); known {
			t.Errorf("the second instance has that of the first: %+v", u)
		}
		time.Sleep(fresh)
		if u, known := read(t, m); !known || u.CPU != time.Second || u.Window != 0 {
			t.Errorf("the second instance: %+v, %t", u, known)
		}
		w.used = process.Resources{}
		time.Sleep(fresh)
		if u, known := read(t, m); known {
			t.Errorf("of a process that cannot be seen: %+v", u)
		}
	})
}

// A reading that fails or hangs is an error, and the next call tries again.
func TestFailedReadingIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{used: process.Resources{Processes: 1}, err: errors.New("no /proc")}
		m := w.meter()
		if _, err := m.Read(t.Context()); !errors.Is(err, w.err) {
			t.Errorf("error %v, want %v", err, w.err)
		}
		w.err, w.takes = nil, time.Hour
		began := time.Now()
		if _, err := m.Read(t.Context()); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != patience {
			t.Errorf("error %v after %s", err, time.Since(began))
		}
		w.takes = 0
		if _, known := read(t, m); !known {
			t.Error("it is not known")
		}
	})
}
