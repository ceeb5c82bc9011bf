package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/logging"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/internal/handover"
	"github.com/core-tools/hsu-master/master"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// Serve runs a master until a signal or a failure ends it. It prepares the process, passes signals to the master, and
// notifies systemd. After an upgrade it does not return, unless the new program cannot be executed. The result is nil
// for an orderly stop.
func Serve(ctx context.Context, cfg Config, stderr io.Writer) (err error) {
	log, out := logging.Open(stderr, cfg.LogJSON, cfg.LogLevel)
	defer out.Close()
	// Watch for signals before anything is opened. A signal that arrives during startup is handled after it.
	taken := takeoverOf(ctx)
	signals := taken.signals()
	defer signals.stop()
	defer signals.bound(cfg.StopTime.Longest, func(took time.Duration) {
		log.Error("master stop timed out", "duration", took)
		out.Close()
		os.Exit(exit.Failed)
	})()
	haveThreads(threadsInHand)
	defer collectSeldom()()
	defer forkMore()()
	if err := process.ShedInherited(); err != nil {
		log.Warn("inherited descriptors and signals not reset", "error", err)
	}
	notify := newNotifier()
	if taken != nil {
		notify.hold(serveWithin)
		defer func() { notify.release() }()
	}
	programs := &programChecker{}
	defer programs.close()
	m, kept, err := open(cfg, notify, taken, programs, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	if process.InheritsOrphans() {
		after := m.Ready() // a worker that ended during the upgrade is a child: its exit belongs to its adoption
		if taken == nil {
			now := make(chan struct{})
			close(now)
			after = now
		}
		defer reapOrphans(after)()
	}
	if cfg.UnitFault != nil {
		log.Error("workers cannot be started", "error", cfg.UnitFault)
	}
	err = runMaster(ctx, m, signals, notify, cfg.Detach, log)
	if errors.Is(err, master.ErrUpgrade) {
		return replaceProgram(m, kept, programs, signals, out, log)
	}
	if err := withoutSuccess(err); err != nil {
		return err
	}
	log.Info("master stopped")
	return nil
}

// open opens the master with what systemd has passed to this process, and the store of its handles.
func open(
	cfg Config, notify *notifier, taken *Takeover, programs *programChecker, log *slog.Logger,
) (*master.Master, *handleStore, error) {
	options := cfg.Master
	options.Log = log
	if cfg.TLS != (api.TLSFiles{}) {
		reloads := make(chan error, 8) // more than the history may need to catch up with
		options.Certificates = reloads
		var err error
		options.TLS, err = cfg.TLS.ConfigNoting(log, func(err error) {
			select {
			case reloads <- err:
			default:
			}
		})
		if err != nil {
			return nil, nil, exit.Hint(exit.Usage(err), "see --tls-cert, --tls-key and --tls-client-ca")
		}
	}
	passed, err := takePassed()
	if err != nil {
		return nil, nil, err
	}
	options.CheckUpgrade, options.Program = programs.check, ownProgram()
	if options.Handed = taken.options(); options.Handed != nil {
		passed.listener = master.Inherit(taken.file(master.FileListener), func(net.Addr) bool { return true })
	}
	kept := newHandleStore(notify, passed.handles, taken)
	if notify.on || handover.Supported {
		options.Keeper = kept
	}
	options.Listen = listenOn(cfg.Address, "--port")
	if passed.listener != nil {
		if address := passed.listener.Addr().String(); cfg.FromFile && !sameAddress(address, cfg.Address) {
			log.Warn("listener differs from the file", "address", address, "listen", cfg.Address)
		}
		options.Listen = func() (net.Listener, error) { return passed.listener, cfg.checkPassed(passed.listener) }
	}
	if cfg.Metrics != "" {
		options.ListenMetrics = inheritMetrics(cfg.Metrics, taken.file(master.FileMetrics))
	}
	if cfg.Registry != "" {
		options.ListenRegistry = master.InheritRegistry(cfg.Registry, taken.file(master.FileRegistry))
	}
	m, err := master.New(options)
	if err != nil && passed.listener != nil {
		_ = passed.listener.Close() // open if New has not come to take it
	}
	return m, kept, err
}

// inheritMetrics returns a function that takes the listener of the earlier program if it has the address, and else
// listens there.
func inheritMetrics(address string, passed *os.File) func() (net.Listener, error) {
	return func() (net.Listener, error) {
		same := func(a net.Addr) bool { return sameAddress(a.String(), address) }
		if l := master.Inherit(passed, same); l != nil {
			return l, nil
		}
		return listenOn(address, "--metrics")()
	}
}

// sameAddress reports whether the address of a listener is the one that was asked for.
func sameAddress(listener, wanted string) bool {
	a, err := netip.ParseAddrPort(listener)
	b, wantedErr := netip.ParseAddrPort(wanted)
	return err == nil && wantedErr == nil && a.Port() == b.Port() && a.Addr().Unmap() == b.Addr().Unmap()
}

// runMaster runs the master under the control of signals, and reports to systemd meanwhile.
func runMaster(ctx context.Context, m *master.Master, signals *signals, notify *notifier, detach bool, log *slog.Logger,
) error {
	ctx, end := context.WithCancelCause(ctx)
	done := make(chan struct{})
	var beside sync.WaitGroup
	reload := func() { beside.Go(func() { rereadUnits(ctx, m, log) }) }
	upgrade := func() { beside.Go(func() { upgradeBySignal(ctx, m) }) }
	taken := takeoverOf(ctx)
	stop := func(cause error) {
		taken.settle() // the former program would not know that it was told to stop
		end(cause)
	}
	beside.Go(func() {
		signals.control(controlled{m.Stopping(), stop, m.Hurry, reload, upgrade, m.HandsOver}, detach, log, done)
	})
	beside.Go(func() { notify.follow(ctx, m, log) })
	beside.Go(func() { taken.await(m) })
	err := m.Run(ctx)
	if ctx.Err() != nil { // it was told to stop, and has not failed
		taken.settle()
		if errors.Is(err, master.ErrUpgrade) { // too late for this program
			signals.repeat([]syscall.Signal{signalOf(context.Cause(ctx))})
		}
	}
	end(nil)
	close(done)
	beside.Wait()
	return err
}

// rereadUnits executes the reload that a signal asks for. The master logs its changes.
func rereadUnits(ctx context.Context, m *master.Master, log *slog.Logger) {
	planned := func(_ []supervisor.Change, later []string) {
		if len(later) > 0 {
			log.Warn("settings not reloaded", "settings", strings.Join(later, " "))
		}
	}
	if err := m.Reread(ctx, false, planned, func() {}); err != nil {
		log.Error("reload failed", "error", err)
	}
}

// upgradeBySignal executes the upgrade that a signal asks for. The master logs it, also if it is refused.
func upgradeBySignal(ctx context.Context, m *master.Master) {
	_ = m.Upgrade(ctx, "", 0, func(master.UpgradeStep, master.Upgrade) {})
}

// listenOn returns a function that listens on an address. flag is the name of the flag that sets it, for hints.
func listenOn(address, flag string) func() (net.Listener, error) {
	listen := master.ListenTCP(address)
	return func() (net.Listener, error) {
		l, err := listen()
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			return nil, exit.Hint(fmt.Errorf("port in use: %s is held by %s", address, portHolder(address)),
				"stop that process, or choose another %s", flag)
		case errors.Is(err, syscall.EADDRNOTAVAIL):
			return nil, exit.Hint(err, "name an address of this host")
		}
		return l, err
	}
}

// portHolder describes the process that listens on the port of an address.
func portHolder(address string) string {
	_, text, _ := net.SplitHostPort(address)
	port, _ := strconv.Atoi(text)
	if pid, name, found := process.PortHolder(port); found {
		return fmt.Sprintf("process %d (%s)", pid, render.Printable(name))
	}
	return "another process"
}
