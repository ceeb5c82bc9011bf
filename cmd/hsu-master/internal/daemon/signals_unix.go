//go:build unix

package daemon

import (
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/core-tools/hsu-master/supervisor"
)

// endingSignals returns the signals that stop or detach the master.
func endingSignals() []os.Signal { return []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGUSR1} }

func notifyUnix(s *signals) {
	signal.Notify(s.detaches, syscall.SIGUSR1)
	// By default these signals would end the process like a crash.
	signal.Notify(s.reloads, syscall.SIGHUP)
	signal.Notify(s.upgrades, syscall.SIGUSR2)
	// A file over its size limit and a log pipe without a reader are write errors and must not end the master.
	// signal.Ignore is not an option, because workers would inherit it.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGXFSZ, syscall.SIGPIPE)
}

// ignoreOnExec has the signals ignored that would kill the next program of this process before it handles them,
// although they do not mean that. It reads its configuration anyway, and INT can be repeated. The next program handles
// them again, so workers do not inherit this. notify undoes it.
func ignoreOnExec() { signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGUSR2) }

// signalOf returns the signal with which a master ends for that cause.
func signalOf(cause error) syscall.Signal {
	if errors.Is(cause, supervisor.ErrDetach) {
		return syscall.SIGUSR1
	}
	return syscall.SIGTERM
}
