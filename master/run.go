package master

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/supervisor"
)

// Run adopts the workers of an earlier master, starts the missing ones, and serves until ctx is done or a part fails.
// Then it drains the calls in flight and stops the workers. If ctx is cancelled with [supervisor.ErrDetach] as the
// cause, Run leaves the workers running for the next master. [Master.Shutdown] ends it likewise. If an essential worker
// fails or ends, Run stops as it does when ctx is done, and returns an [EssentialError]. Run must be called once.
func (m *Master) Run(ctx context.Context) error {
	// The end of ctx begins the stop. Each part ends later, when no call needs it any more.
	work, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer end(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	if m.registry != nil { // until the last worker has ended: one that is being stopped unpublishes its modules
		registry, unserve := context.WithCancel(context.WithoutCancel(ctx))
		defer unserve()
		wg.Go(func() { m.serveRegistry(registry) })
	}
	last, _ := m.store.LastEvent()
	finish := m.react(ctx, &wg, last)
	defer finish()
	accept, failed, supervised := m.start(work, &wg)
	if m.options.Handed == nil {
		accept()
		accept = func() {}
	}

	var err error
	recovered := m.sup.Recovered()
	for ended := false; !ended; {
		select {
		case <-recovered:
			recovered = nil
			m.serve(work, &wg)
			accept() // until now, callers of the earlier program waited in the queue of the listener
			wg.Go(m.upgrades.complete)
		case err = <-failed:
			ended = true
		case err = <-supervised:
			supervised <- nil
			ended = true
		case <-m.essential:
			ended = true
		case <-m.ending.asked:
			ended = true
		case request := <-m.upgrades.begin:
			ended = true
			if m.upgrades.drain(ctx, request) {
				end(supervisor.ErrDetach)
				err := <-supervised
				if err == nil {
					m.admin.finish(adminGrace)
					return ErrUpgrade
				}
				supervised <- err // an essential worker has ended meanwhile
			}
		case <-ctx.Done():
			ended = true
		}
	}
	return m.finishRun(ctx, end, supervised, err)
}

// finishRun stops the master after err, or leaves its workers running, and ends the context of the workers with end.
func (m *Master) finishRun(
	ctx context.Context, end context.CancelCauseFunc, supervised <-chan error, err error,
) error {
	drained := func() {}
	detached := m.ending.begin(errors.Is(context.Cause(ctx), supervisor.ErrDetach))
	if detached {
		m.sup.Drain()
		drained = func() { end(supervisor.ErrDetach) }
	} else {
		end(nil) // each worker is drained before it is stopped
	}
	stopped := m.stop(supervised, drained)
	m.journal().stopped(detached, errors.Join(err, stopped))
	if essential, ended := errors.AsType[*EssentialError](stopped); ended {
		essential.Err = errors.Join(essential.Err, err)
		return essential
	}
	return errors.Join(err, stopped)
}

// start starts the servers and the supervisor, except that of the port, which accept starts. failed receives the error
// of a server that ends, supervised that of the supervisor.
func (m *Master) start(ctx context.Context, wg *sync.WaitGroup) (
	accept func(), failed <-chan error, supervised chan error,
) {
	servers := make(chan error, 2)
	supervised = make(chan error, 1)
	if m.metrics != nil {
		wg.Go(func() { m.serveMetrics(ctx) })
	}
	wg.Go(func() { m.journal().started(ctx, m.options.Version) })
	accept = func() { wg.Go(func() { servers <- wrap("serve requests", m.gateway.Serve(m.listener)) }) }
	admins := m.admin.listener // another one may replace it before the goroutine starts
	wg.Go(func() { servers <- wrap("serve administrators", m.admin.serve(admins)) })
	wg.Go(func() { supervised <- m.sup.Serve(ctx) })
	m.log.Info("master started", "address", m.listener.Addr().String(),
		"state_dir", m.options.StateDir, "pid", os.Getpid())
	return accept, servers, supervised
}

// serve reports the recovered master as serving, and starts the parts that would disturb a recovery.
func (m *Master) serve(ctx context.Context, wg *sync.WaitGroup) {
	crashpoint.Pass(crashpoint.Serving, func() { m.gateway.SetServing(true) })
	m.log.Info("master serving", "address", m.listener.Addr().String(), "processed", m.store.Processed())
	close(m.ready)
	wg.Go(func() { m.journal().follow(ctx, m.outages, m.options.Certificates) })
	wg.Go(func() { m.store.ServeBackups(ctx, m.options.BackupInterval) })
	wg.Go(func() { m.admin.keep(ctx, wg, m.stateIsThere) })
}

// stop shuts down both servers and waits for the supervisor to end. It calls whenDrained when no call is in flight any
// more; a supervisor that leaves its workers running may then end.
func (m *Master) stop(supervised <-chan error, whenDrained func()) error {
	m.gateway.SetServing(false)
	close(m.stopping)
	ctx, cancel := context.WithTimeout(context.Background(), m.options.StopGrace)
	defer cancel()
	var drained sync.WaitGroup
	drained.Go(func() {
		m.gateway.Shutdown(ctx)
		whenDrained()
	})
	defer drained.Wait()
	for {
		select {
		case err := <-supervised:
			cancel() // no worker is left to answer the remaining calls
			drained.Wait()
			m.endAdmin(err)
			return err
		case <-m.hurry:
			m.log.Warn("master stopping immediately")
			m.sup.Hurry()
			cancel()
		}
	}
}

// Hurry makes a master that stops, or that will stop, end the calls in flight and kill its workers without a grace.
func (m *Master) Hurry() {
	select {
	case m.hurry <- struct{}{}:
	default: // an earlier call is pending
	}
}

// serveMetrics serves metrics until ctx is done. A failure is logged and does not end the master.
func (m *Master) serveMetrics(ctx context.Context) {
	server := api.MetricsServer{Log: m.log, Source: api.MetricsSource{
		Store: m.store, Workers: m.sup.Workers, Usage: m.sup.Usage, Services: m.sup.Services().Snapshot,
		Gateway: m.gateway.Figures, Version: m.options.Version,
	}}
	if err := server.Serve(ctx, m.metrics); err != nil {
		m.log.Error("metrics server failed", "error", err)
	}
}

// stateIsThere reports whether the files of the state exist.
func (m *Master) stateIsThere(ctx context.Context) bool {
	// Alive makes the store check for its files, which it otherwise does only when it writes.
	return m.store.Alive(ctx) == nil && m.store.Writable() == nil
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}
