package daemon

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/core-tools/hsu-master/supervisor"
)

// signals delivers the signals by which an operator controls a running master.
type signals struct {
	stops, detaches, reloads, upgrades chan os.Signal
	heard                              chan os.Signal // those of endingSignals, for the bound of the stop
}

func watchSignals() *signals {
	s := &signals{
		// Room for a second INT that arrives while the first is handled.
		stops:    make(chan os.Signal, 2),
		detaches: make(chan os.Signal, 1),
		reloads:  make(chan os.Signal, 1),
		upgrades: make(chan os.Signal, 1),
		heard:    make(chan os.Signal, 4),
	}
	s.notify()
	return s
}

func (s *signals) notify() {
	signal.Notify(s.stops, os.Interrupt, syscall.SIGTERM)
	signal.Notify(s.heard, endingSignals()...)
	notifyUnix(s)
}

func (s *signals) stop() {
	for _, c := range []chan os.Signal{s.stops, s.detaches, s.reloads, s.upgrades, s.heard} {
		signal.Stop(c)
	}
}

// handOver ends the delivery of the signals that stop the master, and returns those that have been delivered and not
// been handled. A later TERM ends the process like a crash: otherwise the execution of the next program would lose it.
// notify undoes it.
func (s *signals) handOver() []syscall.Signal {
	signal.Stop(s.heard)
	signal.Stop(s.stops) // it returns when each signal that was received is in the channel
	return s.pending()
}

// pending returns the signals that would end the master and have not been handled. repeat undoes it.
func (s *signals) pending() (left []syscall.Signal) {
	for {
		select {
		case <-s.heard:
		case sig := <-s.stops:
			left = append(left, sig.(syscall.Signal)) // all signals of an operating system are
		case sig := <-s.detaches:
			left = append(left, sig.(syscall.Signal))
		default:
			return left
		}
	}
}

// union returns the kinds of signals of both lists, each once: one signal may be in both, and a second INT means more
// than the first.
func union(a, b []syscall.Signal) (kinds []syscall.Signal) {
	for _, sig := range slices.Concat(a, b) {
		if !slices.Contains(kinds, sig) {
			kinds = append(kinds, sig)
		}
	}
	return kinds
}

// repeat delivers signals that the earlier program of this process has not handled.
func (s *signals) repeat(left []syscall.Signal) {
	for _, sig := range left {
		to := s.detaches
		if sig == syscall.SIGINT || sig == syscall.SIGTERM {
			to = s.stops
		}
		for _, c := range []chan os.Signal{to, s.heard} {
			select {
			case c <- sig:
			default: // the same has arrived again
			}
		}
	}
}

// controlled is a master as signals see it.
type controlled struct {
	stopping <-chan struct{}         // closed when it begins to stop
	end      context.CancelCauseFunc // makes it stop
	hurry    func()                  // makes it stop at once
	reload   func()                  // makes it read its units again; returns at once
	upgrade  func()                  // has its program replaced; returns at once
	// handsOver reports whether it stops because its program is replaced.
	handsOver func() bool
}

// control executes the signals until done is closed. The first TERM or INT stops the master, and leaves its workers
// running with detach. USR1 always leaves them. HUP has the units read again. While the master stops, INT makes it stop
// at once; a service manager may send TERM again, which does not mean that.
func (s *signals) control(m controlled, detach bool, log *slog.Logger, done <-chan struct{}) {
	stopping := m.stopping // nil once the master stops or was told to
	for {
		select {
		case sig := <-s.stops:
			switch {
			case stopping != nil:
				log.Info("master stopping", "signal", sig.String(), "detach", detach)
				var cause error
				if detach {
					cause = supervisor.ErrDetach
				}
				m.end(cause)
				stopping = nil
			case sig == os.Interrupt:
				m.hurry()
			}
		case sig := <-s.detaches:
			if stopping != nil {
				log.Info("master stopping", "signal", sig.String(), "detach", true)
				m.end(supervisor.ErrDetach)
				stopping = nil
			}
		case <-s.reloads:
			if stopping != nil {
				m.reload()
			}
		case <-s.upgrades:
			if stopping != nil {
				m.upgrade()
			}
		case <-stopping:
			if m.handsOver() {
				return // the next program executes the signals that arrive now
			}
			// It stops for another reason than a signal, and is bounded likewise.
			stopping = nil
			select {
			case s.heard <- syscall.SIGTERM:
			default:
			}
		case <-done:
			return
		}
	}
}
