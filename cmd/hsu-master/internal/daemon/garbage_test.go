package daemon

import (
	"os"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"
)

func TestCollectSeldom(t *testing.T) {
	t.Setenv("GOGC", "") // has it restored
	if err := os.Unsetenv("GOGC"); err != nil {
		t.Fatal(err)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(usualGCPercent))
	percent := func() int {
		now := debug.SetGCPercent(usualGCPercent)
		debug.SetGCPercent(now)
		return now
	}
	synctest.Test(t, func(t *testing.T) {
		stop := collectSeldom()
		if got := percent(); got != startGCPercent {
			t.Errorf("at the start: %d, want %d", got, startGCPercent)
		}
		time.Sleep(startTime)
		synctest.Wait()
		if got := percent(); got != usualGCPercent {
			t.Errorf("after the start: %d, want %d", got, usualGCPercent)
		}
		stop()
		collectSeldom()()
		if got := percent(); got != usualGCPercent {
			t.Errorf("after a short run: %d, want %d", got, usualGCPercent)
		}
	})
}

func TestCollectSeldomAsTheUserWishes(t *testing.T) {
	t.Setenv("GOGC", "70")
	defer debug.SetGCPercent(debug.SetGCPercent(70))
	stop := collectSeldom()
	if got := debug.SetGCPercent(70); got != 70 {
		t.Errorf("during the start: %d, want that of GOGC", got)
	}
	stop()
	if got := debug.SetGCPercent(70); got != 70 {
		t.Errorf("after it: %d, want that of GOGC", got)
	}
}
