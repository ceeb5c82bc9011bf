package worker

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestTurnsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turns Turns
		for round := range 2 {
			for i := range 3*turnSize + 1 {
				if got, want := turns.Take(), time.Duration(i/turnSize)*turnEvery; got != want {
					t.Errorf("round %d: turn %d begins in %s, want %s", round, i, got, want)
				}
			}
			time.Sleep(time.Second)
		}
	})
}
