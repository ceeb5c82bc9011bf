package schedule

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// ringing serves a clock until the test ends. The wall clock of the test is step ahead of the machine's.
func ringing(t *testing.T, step *atomic.Int64) *Clock {
	c := NewClock(func() time.Time { return time.Now().Add(time.Duration(step.Load())) })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); c.Serve(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return c
}

// rings reports whether the alarm has gone off.
func rings(a *Alarm) bool {
	synctest.Wait()
	select {
	case <-a.C():
		return true
	default:
		return false
	}
}

func TestAlarmGoesOffAtItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := ringing(t, new(atomic.Int64))
		first, second, stopped := c.NewAlarm(), c.NewAlarm(), c.NewAlarm()
		second.Set(c.Now().Add(49 * time.Hour))
		first.Set(c.Now().Add(25 * time.Hour))
		stopped.Set(c.Now().Add(time.Hour))
		stopped.Set(time.Time{})
		time.Sleep(25*time.Hour - time.Second)
		if rings(first) || rings(second) || rings(stopped) {
			t.Error("an alarm went off too early")
		}
		time.Sleep(time.Second)
		if !rings(first) || rings(second) {
			t.Error("the first alarm, and it alone, should have gone off")
		}
		time.Sleep(24 * time.Hour)
		if !rings(second) || rings(first) {
			t.Error("the second alarm, and it alone, should have gone off")
		}
	})
}

func TestStepOfTheClockIsNoticedWithinAMinute(t *testing.T) {
	for name, by := range map[string]time.Duration{"forward": 3 * time.Hour, "back": -3 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var step atomic.Int64
				c := ringing(t, &step)
				a := c.NewAlarm()
				a.Set(c.Now().Add(2 * time.Hour))
				time.Sleep(10 * time.Minute)
				if rings(a) {
					t.Fatal("the alarm went off too early")
				}
				step.Store(int64(by))
				time.Sleep(maxWait)
				if !rings(a) {
					t.Error("the step was not noticed")
				}
			})
		})
	}
}
