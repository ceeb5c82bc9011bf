package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/core-tools/hsu-master/deploy"
)

// notifier talks to systemd, sd_notify(3); without systemd it does nothing.
type notifier struct {
	on       bool
	interval time.Duration
}

// statusInterval is how often STATUS= is brought up to date where no watchdog
// asks for more.
const statusInterval = 10 * time.Second

func newNotifier() *notifier {
	on, err := sd.SdNotify(false, "")
	n := &notifier{on: on && err == nil, interval: statusInterval}
	if every, err := sd.SdWatchdogEnabled(false); err == nil && every > 0 {
		// Half of what it waits, as sd_watchdog_enabled(3) asks for.
		n.interval = min(n.interval, every/2)
	}
	return n
}

// ticker fires as often as systemd wants a sign of life; nil without systemd.
func (n *notifier) ticker() <-chan time.Time {
	if !n.on {
		return nil
	}
	return time.Tick(n.interval)
}

func (n *notifier) ready(status string) { n.send(sd.SdNotifyReady + "\nSTATUS=" + status) }
func (n *notifier) alive(status string) { n.send(sd.SdNotifyWatchdog + "\nSTATUS=" + status) }
func (n *notifier) stopping()           { n.send(sd.SdNotifyStopping + "\nSTATUS=stopping the workers") }

func (n *notifier) send(state string) {
	if n.on {
		// Nobody can be told that systemd cannot be told.
		_, _ = sd.SdNotify(false, state)
	}
}

// passed is what systemd hands to the service when it starts it.
type passed struct {
	listener net.Listener        // nil where there is none
	handles  map[string]*os.File // kept for an earlier master, by name
}

// maxPassed is more than a service manager has descriptors for.
const maxPassed = 1 << 20

// takePassed takes what systemd passed, sd_listen_fds(3).
func takePassed() (passed, error) {
	if count, err := strconv.Atoi(os.Getenv("LISTEN_FDS")); err == nil && count > maxPassed {
		return passed{}, fmt.Errorf("LISTEN_FDS is %d: want what systemd has set, or nothing", count)
	}
	return sortPassed(activation.Files(true))
}

// sortPassed tells the listener from the handles, by their names. It closes what is
// of no use: all of them where it fails.
func sortPassed(files []*os.File) (_ passed, err error) {
	p := passed{handles: map[string]*os.File{}}
	defer func() {
		if err != nil {
			for _, f := range files {
				_ = f.Close() // again, for some
			}
			if p.listener != nil {
				_ = p.listener.Close()
			}
		}
	}()
	for _, f := range files {
		if f.Name() != deploy.ListenerName {
			if p.handles[f.Name()] != nil {
				_ = f.Close() // of the same process
				continue
			}
			p.handles[f.Name()] = f
			continue
		}
		if p.listener != nil {
			return passed{}, errors.New("systemd passed more than one socket: name one ListenStream= in the socket unit")
		}
		if !listens(f) {
			return passed{}, errors.New("systemd passed a socket that does not listen: use ListenStream= and Accept=no in the socket unit")
		}
		if p.listener, err = net.FileListener(f); err != nil {
			return passed{}, fmt.Errorf("take the socket that systemd passed: %w: use ListenStream= in the socket unit", err)
		}
		_ = f.Close() // the listener has its own descriptor
	}
	return p, nil
}

// handleStore keeps handles in systemd's file descriptor store.
type handleStore struct {
	notify *notifier
	kept   map[string]*os.File
}

func (s handleStore) Kept(token string) *os.File { return s.kept[token] }

func (s handleStore) Keep(token string, handle *os.File) error {
	// FDPOLL=0: a handle of a process that has ended is what it is kept for.
	return s.notify.sendFile("FDSTORE=1\nFDPOLL=0\nFDNAME="+token, handle)
}

func (s handleStore) Drop(token string) error {
	s.notify.send("FDSTOREREMOVE=1\nFDNAME=" + token)
	return nil
}
