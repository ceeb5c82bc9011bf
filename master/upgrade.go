package master

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/process"
)

const (
	defaultDrain = 30 * time.Second
	// checkWithin bounds the check of the new program.
	checkWithin = 10 * time.Second
	// upgradeRecordWithin bounds how long the history waits for a store that does not write.
	upgradeRecordWithin = 5 * time.Second
	// upgradeFolder holds the copy of the state for the check, in the runtime folder.
	upgradeFolder = "upgrade-check"
	// adminGrace is how long calls of administrators in flight may take to end.
	adminGrace = 200 * time.Millisecond
	// stateFile is the name of the database in a state folder.
	stateFile = "state.db"
)

var (
	// ErrUpgrade is returned by [Master.Run] if the program is to be replaced: the caller calls [Master.HandOver] and
	// executes the new program.
	ErrUpgrade = errors.New("the program of the master is being replaced")
	// ErrUpgrading is returned by [Master.Upgrade] if another upgrade is under way.
	ErrUpgrading = api.ErrUpgrading
	// ErrNoUpgrade is returned by [Master.AwaitUpgrade] if this program does not come from the upgrade.
	ErrNoUpgrade = api.ErrNoUpgrade
	// ErrRecovering is returned by [Master.Upgrade] while the master does not serve yet.
	ErrRecovering = errors.New("the master is recovering: try again when it serves")
	// ErrAborted is returned by [Master.Upgrade] if the master stops before the new program is executed.
	ErrAborted = errors.New("the upgrade was aborted: the master is stopping")
)

// Upgrade is the replacement of the program of a running master by another one in the same process.
type Upgrade struct {
	ID       string
	Binary   string // path of the new program
	From, To string // versions of the former program and of the new one
	Operator *records.Operator
	// Paused is when the former program stopped accepting connections, on the clock of [process.BootTime].
	Paused time.Duration
	Cut    int // calls that had not ended in time
	// Failure is why the former program is executed again; empty if it is not.
	Failure string
	// Took is how long new connections waited at most. It is set when the master serves again.
	Took time.Duration
}

// UpgradeCheck has the arguments of the check of the new program.
type UpgradeCheck struct {
	Binary string
	State  string // folder with a copy of the state
	// Listener is the address of the inherited listener. A check that hung would keep the listener itself from the next
	// master.
	Listener net.Addr
	// Env marks the process as one of this master, so that the next one ends it if this one is killed.
	Env []string
}

// UpgradeTarget describes a new program that has passed the check.
type UpgradeTarget struct {
	Version string
	Schema  uint64 // version of the schema that it writes
}

// UpgradeStep is a step of an upgrade.
type UpgradeStep int

// The steps of an upgrade, in order.
const (
	UpgradeChecking UpgradeStep = iota + 1
	UpgradeDraining
	UpgradeExecuting
	UpgradeDone   // the new program serves
	UpgradeFailed // the former program serves again
)

// Names of the files in [Handover].
const (
	FileListener = "listener"
	FileMetrics  = "metrics"
	FileRegistry = "registry"
	fileLock     = "lock"
	fileAdmin    = "admin"
)

// Handover has the descriptors that a master passes to the next one in the same process.
type Handover struct {
	Upgrade Upgrade
	// Files are the lock of the state and the listeners, by name. The admin socket and the lock are taken by [New], the
	// others by the functions of [Options] that listen.
	Files map[string]*os.File
}

// take removes a file, nil if there is none.
func (h *Handover) take(name string) *os.File {
	if h == nil {
		return nil
	}
	f := h.Files[name]
	delete(h.Files, name)
	return f
}

// Close closes the files that are left.
func (h *Handover) Close() {
	for name := range h.Files {
		_ = h.take(name).Close() // a duplicate, which nothing was written to
	}
}

// upgrader is the part of a master that replaces its program.
type upgrader struct {
	master *Master
	one    chan struct{}      // has room for one upgrade at a time
	begin  chan *drainRequest // to Run
	next   *Handover          // for the next program; set before the master stops for it
	going  atomic.Value       // id of the upgrade under way or completed by this program, a string
	// from is the upgrade that this program comes from, nil if it comes from none. It is complete when served is
	// closed.
	from   *Upgrade
	served chan struct{}
}

// drainRequest asks Run to drain and to end for an upgrade that has passed its check.
type drainRequest struct {
	next     *Handover
	drain    time.Duration
	draining chan struct{} // closed when the drain has begun
	executes chan bool     // receives whether the program is replaced now
}

func newUpgrader(m *Master, handed *Handover) *upgrader {
	u := &upgrader{master: m, one: make(chan struct{}, 1), begin: make(chan *drainRequest), served: make(chan struct{})}
	if handed != nil {
		from := handed.Upgrade
		u.from = &from
	}
	return u
}

// Upgrade replaces the program of the master by binary, or by the present file at its own path if binary is empty. It
// checks the new program first; if that fails, nothing has changed. Then Run drains the calls in flight, for at most
// the time of drain (0 means 30 s), and returns [ErrUpgrade]. Upgrade returns right before that. progress is called at
// the beginning of each step, with the id of the upgrade.
//
// An upgrade that is refused before the check begins, with [ErrUpgrading], [ErrRecovering], [ErrAborted] or
// [errors.ErrUnsupported], is logged, and is no failed upgrade in the history.
func (m *Master) Upgrade(
	ctx context.Context, binary string, drain time.Duration, progress func(UpgradeStep, Upgrade),
) error {
	done, err := m.upgrades.admit()
	if err != nil {
		m.log.Warn("upgrade not begun", "error", err)
		return err
	}
	defer done()
	binary, drain = cmp.Or(binary, m.options.Program), cmp.Or(drain, defaultDrain)
	u := Upgrade{
		ID: rand.Text(), Binary: binary, From: m.options.Version, Operator: supervisor.OperatorOf(ctx),
	}
	m.upgrades.going.Store(u.ID)
	progress(UpgradeChecking, u)
	next, err := m.upgrades.prepare(ctx, &u)
	if err != nil {
		u.Failure = err.Error()
		m.journal().upgraded(u)
		return err
	}
	request := &drainRequest{next: next, drain: drain, draining: make(chan struct{}), executes: make(chan bool, 1)}
	select {
	case m.upgrades.begin <- request:
	case <-m.stopping:
		next.Close()
		return ErrAborted
	}
	<-request.draining
	progress(UpgradeDraining, u)
	if !<-request.executes {
		return ErrAborted
	}
	progress(UpgradeExecuting, u)
	return nil
}

// admit returns an error if no upgrade can begin now. Otherwise none other can begin before done is called.
func (u *upgrader) admit() (done func(), err error) {
	m := u.master
	if m.options.CheckUpgrade == nil {
		return nil, fmt.Errorf("upgrade in place: %w", errors.ErrUnsupported)
	}
	select {
	case u.one <- struct{}{}:
		done = func() { <-u.one }
	default:
		return nil, ErrUpgrading
	}
	select {
	case <-m.stopping: // asked first, because a stopping master has been ready
		done()
		return nil, ErrAborted
	default:
	}
	select {
	case <-m.ready:
		return done, nil
	default:
		done()
		return nil, ErrRecovering
	}
}

// prepare has the new program checked, and returns what it is handed.
func (u *upgrader) prepare(ctx context.Context, up *Upgrade) (*Handover, error) {
	if err := u.check(ctx, up); err != nil {
		return nil, err
	}
	next, err := u.newHandover()
	if err != nil {
		return nil, err
	}
	next.Upgrade = *up
	return next, nil
}

// check has the new program check that it can take over.
func (u *upgrader) check(ctx context.Context, up *Upgrade) error {
	m := u.master
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	folder := filepath.Join(m.options.RuntimeDir, upgradeFolder)
	defer func() { _ = os.RemoveAll(folder) }() // the next start removes it too
	schema, err := u.copyState(folder)
	if err != nil {
		return fmt.Errorf("copy the state for the check of the new program: %w", err)
	}
	target, err := m.options.CheckUpgrade(ctx, UpgradeCheck{
		Binary: up.Binary, State: folder, Listener: m.listener.Addr(), Env: []string{
			process.EnvMasterID + "=" + m.store.MasterID(),
			process.EnvStateDir + "=" + m.store.StateDirID().String(),
		},
	})
	if err != nil {
		return err
	}
	if target.Schema != schema {
		return fmt.Errorf("version %s writes schema %d of the state, which version %s cannot read back "+
			"(it has schema %d): stop the master with USR1, which leaves the workers running, and start the new one",
			target.Version, target.Schema, up.From, schema)
	}
	up.To = target.Version
	return nil
}

// copyState makes the folder with a copy of the state, and returns the version of its schema.
func (u *upgrader) copyState(folder string) (schema uint64, err error) {
	m := u.master
	snap, err := m.store.Snapshot()
	if err != nil {
		return 0, err
	}
	var state bytes.Buffer
	if err := m.store.WriteBackup(&state); err != nil {
		return 0, err
	}
	return snap.SchemaVersion, crashpoint.Do(crashpoint.UpgradeCopy, func() error {
		if err := os.RemoveAll(folder); err != nil {
			return err
		}
		if err := os.Mkdir(folder, 0o700); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(folder, stateFile), state.Bytes(), 0o600)
	})
}

// drain drains the gateway for an upgrade. It returns false if ctx ended meanwhile: then the master stops.
func (u *upgrader) drain(ctx context.Context, r *drainRequest) bool {
	m := u.master
	up := &r.next.Upgrade
	m.log.Info("master upgrading", "path", up.Binary, "version", up.To, "drain", r.drain)
	close(r.draining)
	up.Paused = process.BootTime()
	drain, cancel := context.WithTimeout(ctx, r.drain)
	defer cancel()
	up.Cut = m.gateway.Drain(drain)
	if ctx.Err() != nil {
		r.next.Close()
		r.executes <- false
		return false
	}
	m.gateway.Close()
	for _, l := range []net.Listener{m.registry.current(), m.admin.current()} {
		if l, ok := l.(*net.UnixListener); ok {
			l.SetUnlinkOnClose(false) // the next program serves the socket
		}
	}
	u.next = r.next
	close(m.stopping)
	r.executes <- true
	return true
}

// newHandover returns duplicates of the listeners.
func (u *upgrader) newHandover() (*Handover, error) {
	m := u.master
	h := &Handover{Files: map[string]*os.File{}}
	for name, l := range map[string]net.Listener{
		FileListener: m.listener, FileMetrics: m.metrics,
		FileRegistry: m.registry.current(), fileAdmin: m.admin.current(),
	} {
		if l == nil {
			continue
		}
		f, err := duplicate(l)
		if err != nil {
			h.Close()
			return nil, fmt.Errorf("hand over the %s: %w", name, err)
		}
		h.Files[name] = f
	}
	return h, nil
}

// HandsOver reports whether the master is stopping in order to be replaced by the next program of this process.
func (m *Master) HandsOver() bool {
	select {
	case <-m.stopping:
		return m.upgrades.next != nil
	default:
		return false
	}
}

// duplicate returns a duplicate of the descriptor of a listener.
func duplicate(listener net.Listener) (*os.File, error) {
	if l, ok := listener.(interface{ File() (*os.File, error) }); ok {
		return l.File()
	}
	return nil, fmt.Errorf("a listener of type %T has no descriptor", listener)
}

// HandOver releases everything that New opened, as Close does, except the files that it returns for the next program
// of this process. It may be called instead of Close after Run has returned [ErrUpgrade]. If it returns an error too,
// the upgrade can go on: the next master recovers the state as after a crash.
func (m *Master) HandOver() (*Handover, error) {
	err := m.Close()
	return m.upgrades.next, err
}

// AwaitUpgrade returns the upgrade with this id that this program comes from, when the master serves. The error is
// [ErrUpgrading] if this program is still to be replaced by that upgrade.
func (m *Master) AwaitUpgrade(ctx context.Context, id string) (Upgrade, error) {
	switch {
	case m.upgrades.going.Load() == id:
		return Upgrade{}, ErrUpgrading // the next program knows the outcome
	case m.upgrades.from == nil || m.upgrades.from.ID != id:
		return Upgrade{}, ErrNoUpgrade
	}
	select {
	case <-m.upgrades.served:
		return *m.upgrades.from, nil
	case <-m.stopping:
		return Upgrade{}, ErrAborted
	case <-ctx.Done():
		return Upgrade{}, ctx.Err()
	}
}

// complete completes the upgrade that this program comes from. The master serves from now on.
func (u *upgrader) complete() {
	up := u.from
	if up == nil {
		return
	}
	up.Took = process.BootTime() - up.Paused
	close(u.served)
	u.master.journal().upgraded(*up)
}
