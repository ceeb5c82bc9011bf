package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// serve is the daemon: it opens what it needs in order, serves until a signal
// or a failure ends it, and closes in reverse order, each with a bounded wait.
func serve(ctx context.Context, cfg config, stderr io.Writer) (err error) {
	out := newLogWriter(stderr)
	d := &daemon{cfg: cfg, log: newLogger(out, isTerminal(stderr), cfg.logJSON, cfg.logLevel), notify: newNotifier()}
	d.onClose("the log", out.close)
	defer func() { err = errors.Join(err, d.close()) }()
	// Before anything is opened: a signal that comes meanwhile is answered after.
	signals := watchSignals()
	defer signals.stop()
	haveThreads(threadsInHand)
	if err := d.open(ctx); err != nil {
		return err
	}
	if err := d.run(ctx, signals); err != nil {
		return err
	}
	d.log.Info("master stopped")
	return nil
}

type daemon struct {
	cfg     config
	log     *slog.Logger
	notify  *notifier
	closers []closer

	store     *store.DB
	sup       *supervisor.Supervisor
	gateway   *api.Gateway
	admin     *grpc.Server
	tls       *tls.Config // of the port, nil for none
	listener  net.Listener
	adminOn   net.Listener
	metricsOn net.Listener // nil where no figures are shown
}

type closer struct {
	what  string
	close func() error
}

func (d *daemon) onClose(what string, f func() error) {
	d.closers = append(d.closers, closer{what, f})
}

func (d *daemon) close() error {
	var errs []error
	for _, c := range slices.Backward(d.closers) {
		if err := c.close(); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", c.what, err))
		}
	}
	return errors.Join(errs...)
}

func (d *daemon) open(ctx context.Context) error {
	// Without it, results are kept for a whole --request-ttl more at each start.
	boot, err := process.BootID()
	if err != nil {
		d.log.Debug("boot id not read", "error", err)
	}
	if d.cfg.tls != (api.TLSFiles{}) {
		if d.tls, err = d.cfg.tls.Config(d.log); err != nil {
			return hint(usageError{err}, "see --tls-cert, --tls-key and --tls-client-ca")
		}
	}
	if d.store, err = store.Open(d.cfg.folders.state, store.Options{
		Sync: d.cfg.sync, OnDamage: d.cfg.onDamage, KeepBackups: d.cfg.keep, Logger: d.log,
		RequestTTL: d.cfg.resultTTL, BootTime: process.BootTime, BootID: boot,
		LostID: func() (string, error) { return supervisor.LivingMasterID(ctx, d.cfg.folders.state) },
	}); err != nil {
		return err
	}
	d.onClose("the state", d.store.Close)
	passed, err := takePassed()
	if err != nil {
		return err
	}
	options := supervisor.Options{Store: d.store, RuntimeDir: d.cfg.folders.runtime, Log: d.log, Policies: d.cfg.policies}
	if d.notify.on {
		options.Keeper = handleStore{notify: d.notify, kept: passed.handles}
	}
	d.sup, err = supervisor.New(options, d.cfg.units...)
	if err != nil {
		return err
	}
	// Before any worker is started: a port in use must not cost a hundred forks.
	if d.listener = passed.listener; d.listener == nil {
		if d.listener, err = listen(ctx, d.cfg.address, "--port"); err != nil {
			return err
		}
	}
	if d.cfg.metrics != "" {
		if d.metricsOn, err = listen(ctx, d.cfg.metrics, "--metrics"); err != nil {
			return errors.Join(err, d.listener.Close())
		}
		d.onClose("the metrics listener", d.closeMetrics)
	}
	if d.adminOn, err = api.ListenAdmin(ctx, d.cfg.folders.socket()); err != nil {
		return errors.Join(err, d.listener.Close())
	}
	if err := d.cfg.folders.announce(); err != nil {
		// Clients then need --runtime-dir; that is no reason not to run.
		d.log.Warn("admin socket's path not left for clients", "error", err)
	}
	d.onClose("the admin socket's path", d.cfg.folders.takeBack)
	business := api.NewBusiness(d.sup, d.store)
	if d.gateway, err = api.NewGateway(api.GatewayOptions{
		Services: d.sup.Services(), Business: business, Counter: d.store, TLS: d.tls, Log: d.log,
	}); err != nil {
		return err
	}
	d.onClose("the gateway", func() error { d.gateway.Close(); return nil })
	d.admin = api.NewAdminServer(&api.Admin{
		Store: d.store, Supervisor: d.sup,
		Listen: d.listener.Addr().String(), Version: version(), Started: time.Now(),
	}, business)
	return nil
}

// listen listens on an address, which the flag has given.
func listen(ctx context.Context, address, flag string) (net.Listener, error) {
	network := "tcp"
	if host, _, err := net.SplitHostPort(address); err == nil && net.ParseIP(host).To4() != nil {
		network = "tcp4" // else 0.0.0.0 would be all addresses of IPv6 too
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, network, address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, hint(fmt.Errorf("port in use: %s is held by another process", address), "stop that process, or choose another %s", flag)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, hint(fmt.Errorf("listen on %s: %w", address, err), "name an address of this host")
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}

// run serves until the end is asked for or comes.
func (d *daemon) run(ctx context.Context, signals *signals) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	failed := make(chan error, 3)
	if d.metricsOn != nil {
		wg.Go(func() { d.serveMetrics(ctx) })
	}
	wg.Go(func() { failed <- wrap("serve requests", d.gateway.Serve(d.listener)) })
	wg.Go(func() { failed <- wrap("serve administrators", d.admin.Serve(d.adminOn)) })
	supervised := make(chan error, 1)
	wg.Go(func() { supervised <- d.sup.Serve(ctx) })
	d.log.Info("master started", "address", d.listener.Addr().String(), "state", d.cfg.folders.state, "pid", os.Getpid())
	if d.cfg.unitFault != nil {
		d.log.Error("workers cannot be started, those that live are kept", "error", d.cfg.unitFault)
	}

	var err error
	recovered := d.sup.Recovered()
	var settled <-chan time.Time
	beat := d.notify.ticker()
	for ended := false; !ended; {
		select {
		case <-recovered:
			recovered = nil
			crashpoint.Pass(crashpoint.Serving, func() { d.gateway.SetServing(true) })
			d.log.Info("master serving", "address", d.listener.Addr().String(), "processed", d.store.Processed())
			d.notify.ready(d.statusLine())
			settled = time.After(settlingTime)
			wg.Go(func() { d.store.ServeBackups(ctx, d.cfg.backups) })
			wg.Go(func() { d.keepPlaces(ctx, &wg) })
		case <-settled:
			debug.FreeOSMemory()
		case <-beat:
			if err := d.alive(ctx); err != nil {
				d.log.Error("master does not answer itself", "error", err)
				continue // no word to the watchdog: it will act
			}
			d.notify.alive(d.statusLine())
		case s := <-signals.stops:
			d.log.Info("master stopping", "signal", s.String(), "detach", d.cfg.detach)
			ended = true
			if d.cfg.detach {
				end(supervisor.ErrDetach)
			}
		case <-signals.detaches:
			d.log.Info("master detaching: workers are left running")
			ended = true
			end(supervisor.ErrDetach)
		case s := <-signals.ignored:
			d.log.Warn("signal has no meaning for this master", "signal", s.String())
		case err = <-failed:
			ended = true
		case err = <-supervised:
			supervised <- nil
			ended = true
		case <-ctx.Done():
			ended = true
		}
	}
	end(nil)
	return errors.Join(err, d.stop(signals, supervised))
}

// stop ends both servers and the workers side by side: what is under way needs
// the workers, and the workers' own drain waits for it.
func (d *daemon) stop(signals *signals, supervised <-chan error) error {
	d.gateway.SetServing(false)
	d.notify.stopping()
	ctx, cancel := context.WithTimeout(context.Background(), d.cfg.stopGrace)
	defer cancel()
	var drained sync.WaitGroup
	drained.Go(func() { d.gateway.Shutdown(ctx) })
	defer drained.Wait()
	for {
		select {
		case err := <-supervised:
			cancel() // no worker is left to answer what is still waiting
			drained.Wait()
			d.admin.Stop()
			return err
		case s := <-signals.stops:
			if s != os.Interrupt {
				continue // TERM again is what a service manager may do; it means no hurry
			}
			d.log.Warn("master stopping at once")
			d.sup.Hurry()
			cancel()
		}
	}
}

// closeMetrics closes the listener where its server has not done so.
func (d *daemon) closeMetrics() error {
	if err := d.metricsOn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// serveMetrics shows figures until ctx ends. That they cannot be shown ends no master.
func (d *daemon) serveMetrics(ctx context.Context) {
	server := &http.Server{
		Handler: api.MetricsHandler(api.MetricsSource{
			Store: d.store, Workers: d.sup.Workers, Services: d.sup.Services().Snapshot, Gateway: d.gateway.Figures,
			Version: version(),
		}),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(d.metricsOn); err != nil && !errors.Is(err, http.ErrServerClosed) {
		d.log.Error("figures are not shown any more", "error", err)
	}
}

// settlingTime is how long a start leaves garbage behind: connections, scans. The
// runtime would keep that memory for minutes, and a master is idle for weeks.
const settlingTime = 5 * time.Second

// aliveWithin bounds each answer of the liveness check.
const aliveWithin = 2 * time.Second

// alive asks everything that could hang.
func (d *daemon) alive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, aliveWithin)
	defer cancel()
	return errors.Join(d.store.Alive(ctx), d.sup.Alive(ctx))
}

func (d *daemon) statusLine() string {
	workers := d.sup.Workers()
	ready := 0
	for _, w := range workers {
		if w.Ready {
			ready++
		}
	}
	if err := d.store.Writable(); err != nil {
		return fmt.Sprintf("%d of %d workers ready, but %v", ready, len(workers), err)
	}
	if len(workers) == 0 {
		return fmt.Sprintf("standalone, %d requests processed", d.store.Processed())
	}
	return fmt.Sprintf("%d of %d workers ready, %d requests processed", ready, len(workers), d.store.Processed())
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}
