// Package master is a whole master as a value: the state of its workers, their supervisor, the port with its relay, the
// admin socket, and metrics. The command hsu-master is a [Master] with flags, signals and notifications to systemd. A
// program that embeds a master uses this package; a program that serves a business service of its own uses packages
// supervisor and store, as examples/custom-master does.
//
// [New] opens the state and the ports, [Master.Run] serves, and [Master.Close] releases everything that New opened:
//
//	m, err := master.New(master.Options{StateDir: dir, Listen: master.ListenTCP("127.0.0.1:50051")})
//	if err != nil {
//		return err
//	}
//	return errors.Join(m.Run(ctx), m.Close())
//
// [Master.Reload] changes the units of a running master. Only one master at a time can hold a state. Workers survive
// the process that runs their master: the next Run with the same state adopts them.
package master

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/internal/systemd"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/logs/offsets"
	"github.com/core-tools/hsu-master/supervisor/logs/tail"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/reactions"
	"github.com/core-tools/hsu-master/supervisor/recovery"
	"github.com/core-tools/hsu-master/supervisor/services"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// Options configure a [Master]. StateDir and Listen are required; the zero value of each other field works.
type Options struct {
	StateDir string
	// RuntimeDir holds the admin socket and the leases of the workers; empty means "run" in StateDir.
	RuntimeDir string

	// Listen opens the port for requests. New calls it when it holds the state and before it starts a worker, so
	// that a second master of the same state fails with a [store.LockedError]. The master closes the listener.
	Listen func() (net.Listener, error)
	// ListenMetrics opens the port for Prometheus; nil disables metrics. It is called after Listen.
	ListenMetrics func() (net.Listener, error)
	// ListenRegistry opens the unix socket of the module registry, such as [ListenRegistry]; nil disables the registry.
	// It is called after Listen, and again if the socket was deleted or replaced.
	ListenRegistry func() (net.Listener, error)
	// TLS is the configuration of the port for requests; nil disables TLS.
	TLS *tls.Config
	// Certificates gets a value for each reload of the files of TLS, for the history: nil, or why they cannot be used.
	// It may be nil.
	Certificates <-chan error

	// Units describe the workers. Without units the master processes requests itself.
	Units []unit.Spec
	// ReadUnits returns the units as they are now, for a reload that an administrator asks for, and the names of other
	// settings that differ and take effect at the next start only. Nil means that the units never change.
	ReadUnits func() (units []unit.Spec, later []string, err error)
	// Rules returns the commands to run for events: first those of the start, and after a call of ReadUnits those that
	// it has read. Nil means none.
	Rules func() []reactions.Rule
	// Policies maps the name of a service to the policy for its calls; "*" applies to all other services.
	Policies map[string]services.Policy
	// Keeper keeps the handles of workers while no master runs; if nil, they are not kept.
	Keeper launcher.Keeper
	// StopGrace bounds how long a stopping master waits for calls in flight; 0 means 10 s.
	StopGrace time.Duration

	Sync     store.SyncMode
	OnDamage store.OnDamage // what to do about a damaged state
	// RequestTTL is how long the result of a request with an id is kept; 0 means 10 minutes.
	RequestTTL time.Duration
	// BackupInterval is the interval between backups of a state that changes; 0 disables them.
	BackupInterval time.Duration
	// KeepBackups is the number of newest backups to keep; 0 means 8.
	KeepBackups int

	// CheckUpgrade runs another program to check that it can take over, for [Master.Upgrade]. It may be nil: then the
	// program of the master cannot be replaced.
	CheckUpgrade func(context.Context, UpgradeCheck) (UpgradeTarget, error)
	// Program is the path of this program, which Upgrade executes if no other is named.
	Program string
	// Handed is the handover of the earlier program of this process; nil if there was none. New takes its lock and
	// its admin socket. The port accepts connections when the workers are recovered.
	Handed *Handover

	Version string       // of the program, for administrators and metrics
	Log     *slog.Logger // nil discards
}

// EssentialError is the error of [Master.Run] if it has stopped everything because an essential worker has failed, or
// has ended.
type EssentialError = supervisor.EssentialError

const defaultStopGrace = 10 * time.Second

// Master is a master that holds its state. Its methods may be called from any goroutine.
type Master struct {
	options Options
	log     *slog.Logger
	closers []closer

	store    *store.DB
	sup      *supervisor.Supervisor
	tails    *tail.Hub
	events   *reactions.Set
	gateway  *api.Gateway
	admin    *adminSocket
	listener net.Listener
	metrics  net.Listener // nil disables metrics
	registry *socket      // nil disables the module registry

	ready    chan struct{} // closed when the master serves
	stopping chan struct{} // closed when it begins to stop
	hurry    chan struct{}
	reread   chan struct{} // has room for one Reread at a time
	ending   *ending
	outages  outages
	// essential gets a value when an essential worker has ended.
	essential chan struct{}
	upgrades  *upgrader
}

type closer struct {
	what  string
	close func() error
}

// New takes the state and opens the ports and the admin socket. It starts no worker: see [Master.Run]. The caller must
// close the master.
//
// New fails with a [store.LockedError] if another master holds the state, and with a [store.DamagedError] if the state
// is damaged. Then everything that it opened is closed again.
func New(o Options) (_ *Master, err error) {
	if o.StateDir == "" || o.Listen == nil {
		return nil, errors.New("master: StateDir and Listen are required")
	}
	if o.RuntimeDir == "" {
		o.RuntimeDir = filepath.Join(o.StateDir, "run")
	}
	if o.StopGrace == 0 {
		o.StopGrace = defaultStopGrace
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	m := &Master{
		options: o, log: o.Log,
		ready: make(chan struct{}), stopping: make(chan struct{}), hurry: make(chan struct{}, 1),
		outages: make(outages, 8),
		reread:  make(chan struct{}, 1), essential: make(chan struct{}, 1), ending: newEnding(),
	}
	m.upgrades = newUpgrader(m, o.Handed)
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	if err := m.openStore(); err != nil {
		return nil, err
	}
	places := &offsets.Tables{}
	m.tails = tail.NewHub(logs.DefaultDir(o.StateDir), places)
	if m.sup, err = supervisor.New(supervisor.Options{
		Store: m.store, RuntimeDir: o.RuntimeDir, Log: o.Log, Policies: o.Policies, Keeper: o.Keeper, Offsets: places,
		OnEssential: func() { m.essential <- struct{}{} },
	}, o.Units...); err != nil {
		return nil, err
	}
	m.events = reactions.New(m.store, m.commands(), o.Log)
	m.applyRules()
	// Listen before starting any worker: a port in use must not cost a hundred forks.
	if err := m.listen(); err != nil {
		return nil, err
	}
	if err := m.openServers(); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Master) openStore() error {
	// Without the boot id, stored results are kept for another RequestTTL after each start.
	boot, err := process.BootID()
	if err != nil {
		m.log.Debug("boot id not read", "error", err)
	}
	if m.store, err = store.Open(m.options.StateDir, store.Options{
		Sync: m.options.Sync, OnDamage: m.options.OnDamage, KeepBackups: m.options.KeepBackups, Logger: m.log,
		RequestTTL: m.options.RequestTTL, BootTime: process.BootTime, BootID: boot,
		LostID: func() (string, error) {
			return recovery.LivingMasterID(context.Background(), m.options.StateDir, m.options.RuntimeDir)
		},
		Lock: m.options.Handed.take(fileLock), Repaired: m.outages.add,
	}); err != nil {
		return err
	}
	m.onClose("the state", m.closeStore)
	// A master that was killed during a check has left its copy of the state.
	if err := os.RemoveAll(filepath.Join(m.options.RuntimeDir, upgradeFolder)); err != nil {
		m.log.Warn("copy of the state not removed", "error", err)
	}
	return nil
}

// closeStore closes the state. For an upgrade it keeps the lock.
func (m *Master) closeStore() error {
	next := m.upgrades.next
	if next == nil {
		return m.store.Close()
	}
	lock, err := m.store.HandOver()
	if lock != nil {
		next.Files[fileLock] = lock
	}
	return err
}

// listen opens the ports and the admin socket.
func (m *Master) listen() (err error) {
	if m.listener, err = m.options.Listen(); err != nil {
		return err
	}
	m.onClose("the listener", closing(m.listener))
	if m.options.ListenMetrics != nil {
		if m.metrics, err = m.options.ListenMetrics(); err != nil {
			return err
		}
		m.onClose("the metrics listener", closing(m.metrics))
	}
	if m.options.ListenRegistry != nil {
		l, err := m.options.ListenRegistry()
		if err != nil {
			return err
		}
		m.registry = new(socket)
		m.registry.set(l)
		m.onClose("the module registry", closing(l))
	}
	m.admin = &adminSocket{stateDir: m.options.StateDir, runtimeDir: m.options.RuntimeDir, log: m.log}
	if err := m.admin.open(m.options.Handed.take(fileAdmin)); err != nil {
		return err
	}
	m.onClose("the admin socket", closing(m.admin.listener))
	if err := m.admin.announce(); err != nil {
		// Clients then need to be given the runtime folder. This is no reason for the master not to run.
		m.log.Warn("admin socket path not published", "error", err)
	}
	m.onClose("the admin socket's path", func() error {
		if m.upgrades.next != nil {
			return nil // the next program has the same socket
		}
		return m.admin.takeBack()
	})
	return nil
}

// openServers creates the servers, which accept connections when [Master.Run] is called.
func (m *Master) openServers() (err error) {
	business := api.NewBusiness(m.sup, m.store)
	if m.gateway, err = api.NewGateway(api.GatewayOptions{
		Services: m.sup.Services(), Business: business, Counter: m.store, TLS: m.options.TLS, Log: m.log,
	}); err != nil {
		return err
	}
	m.onClose("the gateway", func() error { m.gateway.Close(); return nil })
	m.admin.server = api.NewAdminServer(&api.Admin{
		Store: m.store, Supervisor: m.sup, Tails: m.tails,
		Commands: m.events.Figures, Reread: m.Reread, Upgrades: upgradeService{m}, End: m.Shutdown,
		Service:  systemd.ServiceOfThisProcess(),
		InFlight: func() int { return m.gateway.Figures().Streams },
		Listen:   m.listener.Addr().String(), Registry: m.registryURL(),
		Version: m.options.Version, Started: time.Now(),
	}, business)
	return nil
}

func (m *Master) onClose(what string, f func() error) {
	m.closers = append(m.closers, closer{what, f})
}

// closing returns a function that closes the listener if its server has not done so.
func closing(l net.Listener) func() error {
	return func() error {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
}

// Close releases the state and closes all listeners. It must not be called while Run runs. It leaves workers that Run
// did not stop as they are.
func (m *Master) Close() error {
	var errs []error
	for _, c := range slices.Backward(m.closers) {
		if err := c.close(); err != nil {
			errs = append(errs, fmt.Errorf("close %s: %w", c.what, err))
		}
	}
	m.closers = nil
	return errors.Join(errs...)
}

// Addr returns the address of the port for requests.
func (m *Master) Addr() net.Addr { return m.listener.Addr() }

// Ready returns a channel that is closed when the workers of an earlier master are recovered and the health service
// reports SERVING.
func (m *Master) Ready() <-chan struct{} { return m.ready }

// Stopping returns a channel that is closed when the master begins to stop.
func (m *Master) Stopping() <-chan struct{} { return m.stopping }

// Alive returns nil if the parts that could hang, the store and the supervisor, respond before ctx is done.
func (m *Master) Alive(ctx context.Context) error {
	return errors.Join(m.store.Alive(ctx), m.sup.Alive(ctx))
}

// Summary returns the status of the master as a line of text.
func (m *Master) Summary() string {
	workers := m.sup.Workers()
	ready := 0
	for _, w := range workers {
		if w.Ready {
			ready++
		}
	}
	if err := m.store.Writable(); err != nil {
		return fmt.Sprintf("%d of %d workers ready, but %v", ready, len(workers), err)
	}
	if len(workers) == 0 {
		return fmt.Sprintf("standalone, %d requests processed", m.store.Processed())
	}
	return fmt.Sprintf("%d of %d workers ready, %d requests processed", ready, len(workers), m.store.Processed())
}
