package daemon

import (
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

func TestForkMore(t *testing.T) {
	t.Setenv("GOMAXPROCS", "") // has it restored
	if err := os.Unsetenv("GOMAXPROCS"); err != nil {
		t.Fatal(err)
	}
	usual := runtime.GOMAXPROCS(0)
	defer runtime.SetDefaultGOMAXPROCS()
	synctest.Test(t, func(t *testing.T) {
		stop := forkMore()
		if got := runtime.GOMAXPROCS(0); got != startProcs*usual {
			t.Errorf("at the start: %d, want %d", got, startProcs*usual)
		}
		time.Sleep(startTime)
		synctest.Wait()
		if got := runtime.GOMAXPROCS(0); got != usual {
			t.Errorf("after the start: %d, want %d", got, usual)
		}
		stop()
		forkMore()()
		if got := runtime.GOMAXPROCS(0); got != usual {
			t.Errorf("after a short run: %d, want %d", got, usual)
		}
	})
}

func TestForkMoreAsTheUserWishes(t *testing.T) {
	usual := runtime.GOMAXPROCS(0)
	t.Setenv("GOMAXPROCS", "3")
	defer forkMore()()
	if got := runtime.GOMAXPROCS(0); got != usual {
		t.Errorf("during the start: %d, want %d", got, usual)
	}
}
