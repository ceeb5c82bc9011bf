//go:build unix

package daemon

import (
	"errors"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/core-tools/hsu-master/supervisor"
)

func TestSignalsControlTheMaster(t *testing.T) {
	const failing = syscall.Signal(0) // no signal: a part of the master fails, so that it stops
	for name, tt := range map[string]struct {
		signals []os.Signal
		detach  bool
		want    []string
	}{
		"TERM":                {[]os.Signal{syscall.SIGTERM}, false, []string{"stop"}},
		"INT":                 {[]os.Signal{os.Interrupt}, false, []string{"stop"}},
		"TERM, detaching":     {[]os.Signal{syscall.SIGTERM}, true, []string{"detach"}},
		"USR1":                {[]os.Signal{syscall.SIGUSR1}, false, []string{"detach"}},
		"HUP":                 {[]os.Signal{syscall.SIGHUP}, false, []string{"reload"}},
		"HUP while it stops":  {[]os.Signal{syscall.SIGTERM, syscall.SIGHUP}, false, []string{"stop"}},
		"USR2":                {[]os.Signal{syscall.SIGUSR2}, false, []string{"upgrade"}},
		"USR2 while it stops": {[]os.Signal{syscall.SIGTERM, syscall.SIGUSR2}, false, []string{"stop"}},
		"TERM again":          {[]os.Signal{syscall.SIGTERM, syscall.SIGTERM}, false, []string{"stop"}},
		"TERM, INT, INT": {
			[]os.Signal{syscall.SIGTERM, os.Interrupt, os.Interrupt},
			false,
			[]string{"stop", "hurry", "hurry"},
		},
		"USR1, INT":           {[]os.Signal{syscall.SIGUSR1, os.Interrupt}, false, []string{"detach", "hurry"}},
		"TERM, USR1":          {[]os.Signal{syscall.SIGTERM, syscall.SIGUSR1}, false, []string{"stop"}},
		"INT while it fails":  {[]os.Signal{failing, os.Interrupt}, false, []string{"hurry"}},
		"TERM while it fails": {[]os.Signal{failing, syscall.SIGTERM}, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &signals{
					stops: make(chan os.Signal), detaches: make(chan os.Signal),
					reloads: make(chan os.Signal), upgrades: make(chan os.Signal),
				}
				stopping, done := make(chan struct{}), make(chan struct{})
				var got []string
				m := controlled{
					stopping: stopping,
					end: func(cause error) {
						what := "stop"
						if errors.Is(cause, supervisor.ErrDetach) {
							what = "detach"
						}
						got = append(got, what)
					},
					hurry:     func() { got = append(got, "hurry") },
					reload:    func() { got = append(got, "reload") },
					upgrade:   func() { got = append(got, "upgrade") },
					handsOver: func() bool { return false },
				}
				go s.control(m, tt.detach, discard, done)
				for _, sig := range tt.signals {
					switch sig {
					case failing:
						close(stopping)
					case os.Interrupt, syscall.SIGTERM:
						s.stops <- sig
					case syscall.SIGUSR1:
						s.detaches <- sig
					case syscall.SIGHUP:
						s.reloads <- sig
					default:
						s.upgrades <- sig
					}
					synctest.Wait()
				}
				close(done)
				synctest.Wait()
				if !slices.Equal(got, tt.want) {
					t.Errorf("the master was told to %v, want %v", got, tt.want)
				}
			})
		})
	}
}

// The bound of a stop begins too if a command, or a failure, makes the master stop.
func TestStopWithoutASignalIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &signals{heard: make(chan os.Signal, 1)}
		stopping, done := make(chan struct{}), make(chan struct{})
		go s.control(controlled{stopping: stopping, handsOver: func() bool { return false }}, false, discard, done)
		close(stopping)
		synctest.Wait()
		select {
		case <-s.heard:
		default:
			t.Error("the bound has not begun")
		}
		close(done)
	})
}

// A signal that a new program has received in two ways is delivered once: a second INT would end the grace of workers.
func TestSignalReceivedInTwoWaysIsDeliveredOnce(t *testing.T) {
	s := &signals{
		stops: make(chan os.Signal, 2), detaches: make(chan os.Signal, 1), heard: make(chan os.Signal, 4),
	}
	for _, c := range []chan os.Signal{s.stops, s.heard} {
		c <- os.Interrupt
	}
	s.repeat(union([]syscall.Signal{syscall.SIGINT, syscall.SIGUSR1}, s.pending()))
	if len(s.stops) != 1 || len(s.detaches) != 1 || len(s.heard) != 2 {
		t.Errorf("%d signals to stop, %d to detach, and %d for the bound; want 1, 1 and 2",
			len(s.stops), len(s.detaches), len(s.heard))
	}
}
