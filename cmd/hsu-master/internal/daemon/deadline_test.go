package daemon

import (
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestStopIsBounded(t *testing.T) {
	const grace = 10 * time.Second
	type heard struct {
		after time.Duration
		sig   os.Signal
	}
	for name, tt := range map[string]struct {
		heard []heard
		done  time.Duration // after the last signal; 0: never
		want  time.Duration // from the first signal; 0: never
	}{
		"no signal": {
			done: time.Hour,
		},
		"hangs": {
			heard: []heard{{time.Hour, syscall.SIGTERM}},
			want:  grace + stopMargin,
		},
		"ends in time": {
			heard: []heard{{0, syscall.SIGTERM}},
			done:  grace + stopMargin - 1,
		},
		"TERM again": {
			heard: []heard{{0, syscall.SIGTERM}, {time.Second, syscall.SIGTERM}},
			want:  grace + stopMargin,
		},
		"INT again": {
			heard: []heard{{0, os.Interrupt}, {time.Second, os.Interrupt}},
			want:  time.Second + stopMargin,
		},
		"INT at the end": {
			heard: []heard{{0, os.Interrupt}, {grace + stopMargin - 1, os.Interrupt}},
			want:  grace + stopMargin,
		},
		"INT again and yet": {
			heard: []heard{{0, os.Interrupt}, {time.Second, os.Interrupt}},
			done:  time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				signals, done := make(chan os.Signal), make(chan struct{})
				var got time.Duration
				longest := func() time.Duration { return grace }
				go awaitEnd(signals, done, longest, func(took time.Duration) { got = took })
				for _, h := range tt.heard {
					time.Sleep(h.after)
					signals <- h.sig
				}
				if tt.done > 0 {
					time.Sleep(tt.done)
					close(done)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				if got != tt.want {
					t.Errorf("ended after %v, want %v", got, tt.want)
				}
			})
		})
	}
}
