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
			for i := range 3*turnSize + 1 { // the first one alone
				if got, want := turns.Take(), time.Duration((i+turnSize-1)/turnSize)*turnEvery; got != want {
					t.Errorf("round %d: turn %d begins in %s, want %s", round, i, got, want)
				}
			}
			time.Sleep(time.Second)
		}
	})
}
