package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// Errors of [Modules].
var (
	// ErrNotOfWorker means that a process belongs to no living worker.
	ErrNotOfWorker = errors.New("belongs to no worker of this master")
	// ErrOtherProcess means that a module was published by a process of another worker.
	ErrOtherProcess = errors.New("the module was published by another process")
	// ErrForeignPort means that a process of no worker listens on a published port.
	ErrForeignPort = launcher.ErrForeignPort
)

// Modules are the HSU modules that processes of workers publish. A module is known while the instance lives whose
// family has published it, also across restarts of the master.
type Modules struct{ s *Supervisor }

// Modules returns the modules that processes of the workers have published.
func (s *Supervisor) Modules() Modules { return Modules{s} }

// Module is a published module.
type Module struct {
	records.Announcement
	Worker string
	// Routed reports whether calls of the worker's services are routed to it, so that its gRPC APIs are reached through
	// the gateway.
	Routed bool
}

// Alive reports whether the process that runs the module lives.
func (m Module) Alive() bool {
	id, err := process.Identify(m.PID)
	if err != nil {
		return !errors.Is(err, process.ErrGone)
	}
	return id.Inode == m.Inode && id.StartTicks == m.StartTicks
}

// List returns all modules by worker and name.
func (m Modules) List() []Module {
	var list []Module
	for _, w := range m.s.set.list() {
		info := w.Info()
		if info == nil || info.Instance == nil {
			continue
		}
		routed := slices.ContainsFunc(info.Services, func(o records.Offer) bool { return !o.Unlisted })
		for _, a := range info.Instance.Announcements {
			list = append(list, Module{Announcement: a, Worker: w.ID(), Routed: routed})
		}
	}
	return list
}

// Publish records a module that the process by has published. by and the process of a.PID must belong to the family of
// the same worker, and the ports of the APIs to no other process. The module is recorded when Publish returns.
func (m Modules) Publish(ctx context.Context, by *process.Connector, a records.Announcement) error {
	publisher, err := m.identify(ctx, by, a.PID)
	if err != nil {
		return err
	}
	defer publisher.close()
	for _, api := range a.APIs {
		if api.Port == 0 {
			continue
		}
		if owner, _ := publisher.inst.OwnsPort(api.Port); owner == process.PortForeign {
			return launcher.ForeignPort(api.Port)
		}
	}
	id, err := process.Identify(a.PID)
	if err != nil {
		return err
	}
	a.Inode, a.StartTicks = id.Inode, id.StartTicks
	if publisher.ended() {
		return fmt.Errorf("process %d: %w", by.PID, process.ErrGone)
	}
	return publisher.worker.Announce(ctx, publisher.inst, a)
}

// Unpublish removes a module that the process pid has published. by and pid must belong to the family of its worker. It
// does nothing if the module is not known.
func (m Modules) Unpublish(ctx context.Context, by *process.Connector, module string, pid int) error {
	known := slices.DeleteFunc(m.List(), func(known Module) bool { return known.Module != module })
	if len(known) == 0 {
		return nil
	}
	at := slices.IndexFunc(known, func(k Module) bool { return k.PID == pid })
	if at < 0 {
		return ErrOtherProcess
	}
	publisher, err := m.identify(ctx, by, pid)
	if err != nil {
		return err
	}
	defer publisher.close()
	if known[at].Worker != publisher.worker.ID() {
		return ErrOtherProcess
	}
	if publisher.ended() {
		return fmt.Errorf("process %d: %w", by.PID, process.ErrGone)
	}
	return publisher.worker.Unannounce(ctx, publisher.inst, module)
}

// publisher is a process that publishes, and the worker whose family it belongs to.
type publisher struct {
	process *process.Process
	worker  *worker.Worker
	inst    launcher.Instance
}

func (p publisher) close() { _ = p.process.Close() }

// ended reports whether the process has ended, so that its PID may have been that of another one.
func (p publisher) ended() bool {
	select {
	case <-p.process.Done():
		return true
	default:
		return false
	}
}

// identify finds the worker whose family the processes by and pid belong to. The caller closes the publisher.
func (m Modules) identify(ctx context.Context, by *process.Connector, pid int) (publisher, error) {
	select {
	case <-m.s.recovered: // before, a living worker may not have its process yet
	case <-ctx.Done():
		return publisher{}, fmt.Errorf("the workers are being recovered: %w", ctx.Err())
	}
	p, err := by.Open()
	if err != nil {
		return publisher{}, err
	}
	w, inst, err := m.familyOf(ctx, p.PID())
	switch {
	case err != nil:
	case inst == nil:
		err = fmt.Errorf("process %d %w", p.PID(), ErrNotOfWorker)
	case pid != p.PID() && !inst.Includes(pid):
		err = fmt.Errorf("process %d, which is named as the publisher, does not belong to worker %s of process %d: %w",
			pid, w.ID(), p.PID(), ErrNotOfWorker)
	}
	if err != nil {
		return publisher{}, errors.Join(err, p.Close())
	}
	return publisher{p, w, inst}, nil
}

// familyOf returns the worker whose family a process belongs to, and its instance; nil if there is none. The workers
// whose process is the process itself or an ancestor are asked first.
func (m Modules) familyOf(ctx context.Context, pid int) (*worker.Worker, launcher.Instance, error) {
	line := append([]int{pid}, process.Ancestors(pid)...)
	related := func(w *worker.Worker) bool {
		info := w.Info()
		return info != nil && info.Instance != nil && slices.Contains(line, info.Instance.PID)
	}
	var workers, others []*worker.Worker
	for _, w := range m.s.set.list() {
		if related(w) {
			workers = append(workers, w)
		} else {
			others = append(others, w)
		}
	}
	for _, w := range append(workers, others...) {
		if info := w.Info(); info == nil || info.Instance == nil {
			continue
		}
		inst, err := w.Living(ctx)
		switch {
		case errors.Is(err, worker.ErrEnded):
		case err != nil:
			return nil, nil, err
		case inst != nil && inst.Includes(pid):
			return w, inst, nil
		}
	}
	return nil, nil, nil
}
