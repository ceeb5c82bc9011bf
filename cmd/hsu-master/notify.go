package main

import (
	"errors"
	"net"
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

// passedListener returns the socket that systemd passed, nil where it passed none.
// Other descriptors that it may pass are not ours to serve on.
func passedListener() (net.Listener, error) {
	passed, err := activation.ListenersWithNames()
	if err != nil {
		return nil, wrap("take the socket that systemd passed", err)
	}
	listeners := passed[deploy.ListenerName]
	switch {
	case len(listeners) == 0:
		return nil, nil
	case len(listeners) > 1:
		return nil, errors.New("systemd passed more than one socket: name one ListenStream= in the socket unit")
	case listeners[0] == nil:
		return nil, errors.New("systemd passed a socket that is no listening stream: use ListenStream= in the socket unit")
	}
	return listeners[0], nil
}
