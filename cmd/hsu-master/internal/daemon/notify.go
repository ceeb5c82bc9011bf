package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/core-tools/hsu-master/deploy"
	"github.com/core-tools/hsu-master/master"
)

// notifier sends notifications to systemd, sd_notify(3). Without systemd it does nothing.
type notifier struct {
	on       bool
	interval time.Duration
	release  func() // ends hold
}

// statusInterval is the interval between updates of STATUS= if the watchdog does not require a shorter one.
const statusInterval = 10 * time.Second

func newNotifier() *notifier {
	on, err := sd.SdNotify(false, "")
	n := &notifier{on: on && err == nil, interval: statusInterval, release: func() {}}
	if every, err := sd.SdWatchdogEnabled(false); err == nil && every > 0 {
		// Half of the watchdog timeout, as sd_watchdog_enabled(3) recommends.
		n.interval = min(n.interval, every/2)
	}
	return n
}

// aliveWithin bounds the liveness check.
const aliveWithin = 2 * time.Second

// follow reports the master to systemd until it begins to stop. ctx must be done when it is told to.
func (n *notifier) follow(ctx context.Context, m *master.Master, log *slog.Logger) {
	ready := m.Ready()
	beat := n.ticker()
	for {
		select {
		case <-ready:
			ready = nil
			n.release()
			n.ready(m.Summary())
		case <-beat:
			switch err := alive(ctx, m); {
			case err == nil:
				n.alive(m.Summary())
			case ctx.Err() == nil:
				// Without a keep-alive the watchdog of systemd will act.
				log.Error("master self-check failed", "error", err)
			}
		case <-m.Stopping():
			if m.HandsOver() {
				n.replacing()
			} else {
				n.stopping()
			}
			return
		}
	}
}

// hold sends keep-alives until n.release is called, for at most the time of limit. The watchdog of systemd that began
// with the earlier program of this process goes on, while this one starts and recovers the workers.
func (n *notifier) hold(limit time.Duration) {
	if !n.on {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	var sender sync.WaitGroup
	n.release = sync.OnceFunc(func() {
		cancel()
		sender.Wait()
	})
	n.send(sd.SdNotifyWatchdog)
	beat := time.Tick(n.interval)
	sender.Go(func() {
		for {
			select {
			case <-beat:
				n.send(sd.SdNotifyWatchdog)
			case <-ctx.Done():
				return
			}
		}
	})
}

func alive(ctx context.Context, m *master.Master) error {
	ctx, cancel := context.WithTimeout(ctx, aliveWithin)
	defer cancel()
	return m.Alive(ctx)
}

// ticker returns a channel that ticks as often as systemd expects a keep-alive, or nil without systemd.
func (n *notifier) ticker() <-chan time.Time {
	if !n.on {
		return nil
	}
	return time.Tick(n.interval)
}

func (n *notifier) ready(status string) {
	n.send(sd.SdNotifyReady + "\n" + sd.SdNotifyWatchdog + "\nSTATUS=" + status)
}

// replacing reports that the program of this process is being replaced. The next program reports READY=1.
func (n *notifier) replacing() {
	n.send(sd.SdNotifyReloading + "\n" + sd.SdNotifyWatchdog + "\nSTATUS=executing the new program")
}

func (n *notifier) alive(status string) { n.send(sd.SdNotifyWatchdog + "\nSTATUS=" + status) }
func (n *notifier) stopping()           { n.send(sd.SdNotifyStopping + "\nSTATUS=stopping the workers") }

func (n *notifier) send(state string) {
	if n.on {
		// A failure to reach systemd cannot be reported anywhere.
		_, _ = sd.SdNotify(false, state)
	}
}

// passed holds the descriptors that systemd passes to the service at its start.
type passed struct {
	listener net.Listener        // nil if there is none
	handles  map[string]*os.File // process handles that an earlier master stored, by name
}

// maxPassed is more descriptors than a service manager can have.
const maxPassed = 1 << 20

// takePassed takes the descriptors that systemd passed, sd_listen_fds(3).
func takePassed() (passed, error) {
	if count, err := strconv.Atoi(os.Getenv("LISTEN_FDS")); err == nil && count > maxPassed {
		return passed{}, fmt.Errorf("LISTEN_FDS is %d: must be as systemd sets it, or unset", count)
	}
	return sortPassed(activation.Files(true))
}

// sortPassed separates the listener from the handles by their names. It closes descriptors that are not needed,
// and all of them if it fails.
func sortPassed(files []*os.File) (_ passed, err error) {
	p := passed{handles: map[string]*os.File{}}
	defer func() {
		if err != nil {
			for _, f := range files {
				_ = f.Close() // some are closed already
			}
			if p.listener != nil {
				_ = p.listener.Close()
			}
		}
	}()
	for _, f := range files {
		if f.Name() != deploy.ListenerName {
			if p.handles[f.Name()] != nil {
				_ = f.Close() // a second handle of the same process
				continue
			}
			p.handles[f.Name()] = f
			continue
		}
		if p.listener != nil {
			return passed{}, errors.New("systemd passed more than one socket: " +
				"name one ListenStream= in the socket unit")
		}
		if !listens(f) {
			return passed{}, errors.New("systemd passed a socket that does not listen: " +
				"use ListenStream= and Accept=no in the socket unit")
		}
		if p.listener, err = net.FileListener(f); err != nil {
			return passed{}, fmt.Errorf("take the socket that systemd passed: %w: "+
				"use ListenStream= in the socket unit", err)
		}
		_ = f.Close() // the listener has its own descriptor
	}
	return p, nil
}
