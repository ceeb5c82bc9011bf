package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/safefile"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// launcher starts processes and finds recorded ones again.
type launcher interface {
	inspector
	// lease creates the lease file that an instance of the worker will hold.
	lease(worker string) (*process.Lease, error)
	// start forks the instance that rec describes.
	start(u Unit, worker string, rec store.Instance, lease *process.Lease) (instance, error)
	// sweep kills the remaining descendants of an instance that is gone and returns those that are still alive.
	sweep(ctx context.Context, worker string, rec store.Instance) ([]process.Holder, error)
}

// instance is one process and its family: all its descendants.
type instance interface {
	Identity() process.Identity
	// Done returns a channel that is closed when the process has ended.
	Done() <-chan struct{}
	// Exit returns how the process ended; valid after Done.
	Exit() process.Exit
	// Suspended reports whether a signal has stopped the process.
	Suspended() bool
	// Terminate sends SIGTERM to the process group.
	Terminate() error
	// TerminateRest sends SIGTERM to descendants that have left the group.
	TerminateRest(ctx context.Context) error
	// Survived reports, at little cost, whether descendants that have kept the lease are alive.
	Survived() bool
	// Kill kills the process and its family and returns the processes that are still alive.
	Kill(ctx context.Context) ([]process.Holder, error)
	// OwnsPort reports whether the process or its family owns the listeners on the port.
	OwnsPort(port int) (process.Ownership, error)
	// OwnsPeer reports whether the process or its family owns the other end of a TCP connection of the master.
	OwnsPeer(ctx context.Context, local, remote netip.AddrPort) (process.Ownership, error)
	// Handle returns a handle on the process for a [Keeper].
	Handle() (*os.File, error)
	// Close releases the handle; the process goes on.
	Close() error
}

type osLauncher struct {
	masterID           string
	stateDir           func() string // current device:inode
	runtimeDir, logDir string
	environ            []string
	uid                int // user of the workers
	// cgroups is the directory of a cgroup tree delegated to the master, with a cgroup for each instance; empty if
	// none is delegated.
	cgroups string
}

// newLauncher returns the launcher of a master with these options, all of which are set.
func newLauncher(opts Options) *osLauncher {
	l := &osLauncher{
		masterID:   opts.Store.MasterID(),
		stateDir:   func() string { return process.FileID(opts.Store.StateDirID()).String() },
		runtimeDir: opts.RuntimeDir,
		logDir:     opts.LogDir,
		environ:    workerEnviron(opts.Environ),
		uid:        os.Geteuid(),
	}
	if dir, delegated := process.DelegatedCgroup(); delegated {
		l.cgroups = dir
	}
	return l
}

func (l *osLauncher) leasePath(worker string) string {
	return filepath.Join(l.runtimeDir, worker+".lease")
}

// LogPath returns the path of a worker's output file in the state directory of a master whose [Options].LogDir is
// the default.
func LogPath(stateDir, worker string) string { return logPath(defaultLogDir(stateDir), worker) }

func defaultLogDir(stateDir string) string { return filepath.Join(stateDir, "logs") }

func logPath(dir, worker string) string { return filepath.Join(dir, worker+".log") }

func (l *osLauncher) lease(worker string) (*process.Lease, error) {
	// The directory may have been deleted. Its parents are not created: a missing state directory may come back.
	if err := safefile.Mkdir(l.runtimeDir); err != nil {
		return nil, fmt.Errorf("make the folder of leases: %w", err)
	}
	return process.CreateLease(l.leasePath(worker))
}

func (l *osLauncher) start(u Unit, worker string, rec store.Instance, lease *process.Lease) (instance, error) {
	path, err := filepath.Abs(u.Path)
	if err != nil {
		return nil, fmt.Errorf("find the worker's executable: %w", err)
	}
	// Check at each start: the file may have been replaced.
	exe, err := checkExecutable(path)
	if err != nil {
		return nil, err
	}
	// A file, not a pipe: a worker must not die of SIGPIPE when the master dies.
	var output *os.File
	if err := safefile.Mkdir(l.logDir); err != nil {
		return nil, fmt.Errorf("%w: make the folder of logs: %w", errOwnFault, err)
	}
	err = crashpoint.Do(crashpoint.LogOpen, func() (err error) {
		output, err = safefile.OpenFile(logPath(l.logDir, worker), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w: open the worker's log: %w", errOwnFault, err)
	}
	defer func() { _ = output.Close() }() // the child has its own descriptor
	cgroup := ""
	if l.cgroups != "" {
		if cgroup, err = process.CreateCgroup(l.cgroups, cgroupName(worker, rec)); err != nil {
			return nil, err
		}
	}
	p, err := process.Start(process.Spec{
		Path: path,
		Args: append(slices.Clone(u.Args), "--port", strconv.Itoa(rec.Port)),
		Env: append(slices.Clone(l.environ),
			process.EnvMasterID+"="+l.masterID,
			process.EnvStateDir+"="+l.stateDir(),
			process.EnvWorkerID+"="+worker,
			process.EnvWorkerToken+"="+rec.Token,
			process.EnvWorkerPort+"="+strconv.Itoa(rec.Port)),
		Output: output,
		Lease:  lease,
		Cgroup: cgroup,
		Exe:    exe,
	})
	if err != nil {
		return nil, errors.Join(err, removeCgroup(cgroup))
	}
	return l.instance(worker, rec, p), nil
}

func (l *osLauncher) attach(worker string, rec store.Instance) (instance, error) {
	p, err := process.Open(processIdentity(rec), rec.Token)
	if errors.Is(err, process.ErrElsewhere) {
		p, err = l.search(worker, rec)
	}
	if err != nil {
		return nil, err
	}
	return l.instance(worker, rec, p), nil
}

// searchTimeout bounds the search for a process of another PID namespace.
const searchTimeout = 2 * time.Second

// search looks for an instance whose PID belongs to another PID namespace: of a container that has ended, or of the
// host, seen from a container. If the process is not visible, it is gone only if all other evidence agrees. A lock
// is visible across namespaces, so no process may hold the instance's lease. In case the process has closed its
// lease, its port must also have no listener that is invisible here.
func (l *osLauncher) search(worker string, rec store.Instance) (*process.Process, error) {
	ctx, cancel := context.WithTimeout(context.Background(), searchTimeout)
	defer cancel()
	p, err := process.Search(ctx, processIdentity(rec), rec.Token)
	if !errors.Is(err, process.ErrUnverifiable) {
		return p, err
	}
	const next = "start a master where it ran, or reboot if it is certainly gone"
	held, leaseErr := process.LeaseHeld(l.leasePath(worker), process.FileID(rec.Lease))
	switch {
	case leaseErr != nil:
		return nil, fmt.Errorf("%w, and its lease tells nothing: %w: %s", err, leaseErr, next)
	case held:
		return nil, fmt.Errorf("%w, and its lease is held: it lives: start a master where it runs", err)
	}
	hidden, portErr := process.PortHidden(ctx, rec.Port)
	switch {
	case portErr != nil:
		return nil, fmt.Errorf("%w: %w: %s", err, portErr, next)
	case hidden:
		return nil, fmt.Errorf("%w, but somebody unseen listens on its port %d: %s", err, rec.Port, next)
	}
	return nil, fmt.Errorf("%w: nobody holds its lease: it was %d of pid namespace %d",
		process.ErrGone, rec.PID, rec.PIDNamespace)
}

func (l *osLauncher) take(worker string, pid int, rec store.Instance) (instance, process.Identity, error) {
	p, err := process.OpenPID(pid)
	if err != nil {
		return nil, process.Identity{}, err
	}
	if err := p.Verify(rec.Token); err != nil {
		return nil, process.Identity{}, errors.Join(err, p.Close())
	}
	return l.instance(worker, rec, p), p.Identity(), nil
}

func (l *osLauncher) identify(pid int) (process.Identity, error) { return process.Identify(pid) }

func (l *osLauncher) left(
	ctx context.Context, worker string, rec store.Instance, seen bool,
) (string, []process.Holder, error) {
	family, lease := l.family(worker, rec), leaseUnknown
	if family.LeasePath != "" {
		switch held, err := process.LeaseHeld(family.LeasePath, family.Lease); {
		case held:
			lease = leaseHeld
		case err == nil:
			lease = leaseFree
		}
	}
	if lease != leaseHeld && !seen && family.Cgroup == "" {
		return lease, nil, nil
	}
	members, err := family.Members(ctx)
	return lease, members, err
}

func (l *osLauncher) owner(worker string, rec store.Instance, port int) (process.Ownership, error) {
	return l.family(worker, rec).OwnsPort(port)
}

func (l *osLauncher) holds(worker string, rec store.Instance, pid int) bool {
	return process.HoldsLease(pid, l.leasePath(worker), process.FileID(rec.Lease))
}

func (l *osLauncher) sweep(ctx context.Context, worker string, rec store.Instance) ([]process.Holder, error) {
	return killFamily(ctx, l.family(worker, rec))
}

// killFamily kills the family and removes its cgroup if it is empty.
func killFamily(ctx context.Context, f process.Family) ([]process.Holder, error) {
	left, err := f.Kill(ctx)
	if err == nil && len(left) == 0 {
		err = removeCgroup(f.Cgroup)
	}
	return left, err
}

func removeCgroup(path string) error {
	if path == "" {
		return nil
	}
	return process.RemoveCgroup(path)
}

// cgroupName returns a name that is unique to the instance and follows from its record.
func cgroupName(worker string, rec store.Instance) string { return worker + "." + rec.Token }

func (l *osLauncher) instance(worker string, rec store.Instance, p *process.Process) instance {
	family := l.family(worker, rec)
	family.Leader, family.Main = p.PID(), p
	family.Session, family.StartTicks = p.PID(), p.Identity().StartTicks
	return &osInstance{Process: p, family: family}
}

func (l *osLauncher) family(worker string, rec store.Instance) process.Family {
	family := process.Family{
		Token: rec.Token, Lease: process.FileID(rec.Lease),
		Session: rec.PID, UID: uint32(l.uid), StartTicks: rec.StartTicks,
	}
	if rec.Lease != (store.FileID{}) {
		family.LeasePath = l.leasePath(worker)
	}
	if l.cgroups != "" {
		path := filepath.Join(l.cgroups, cgroupName(worker, rec))
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			family.Cgroup = path
		}
	}
	return family
}

type osInstance struct {
	*process.Process
	family process.Family
}

func (i *osInstance) Suspended() bool { return i.Stopped() }

func (i *osInstance) Terminate() error {
	// SIGCONT follows because a stopped process handles SIGTERM only when it continues.
	err := i.SignalGroup(syscall.SIGTERM)
	return errors.Join(err, i.SignalGroup(process.SignalContinue))
}

func (i *osInstance) TerminateRest(ctx context.Context) error { return i.family.Terminate(ctx) }

func (i *osInstance) Survived() bool {
	if i.family.LeasePath == "" {
		return false
	}
	held, err := process.LeaseHeld(i.family.LeasePath, i.family.Lease)
	return held && err == nil
}

func (i *osInstance) Kill(ctx context.Context) ([]process.Holder, error) {
	return killFamily(ctx, i.family)
}

func (i *osInstance) OwnsPort(port int) (process.Ownership, error) { return i.family.OwnsPort(port) }

func (i *osInstance) OwnsPeer(ctx context.Context, local, remote netip.AddrPort) (process.Ownership, error) {
	return i.family.OwnsPeer(ctx, local, remote)
}

// workerEnviron removes the entries of base that are meant for the master alone: its own variables, those of
// systemd's notification protocols, and the paths of its credentials and other directories.
func workerEnviron(base []string) []string {
	return slices.DeleteFunc(slices.Clone(base), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		switch name {
		case "NOTIFY_SOCKET", "JOURNAL_STREAM":
			return true
		}
		for _, prefix := range []string{"HSU_", "WATCHDOG_", "LISTEN_"} {
			if strings.HasPrefix(name, prefix) {
				return true
			}
		}
		return strings.HasSuffix(name, "_DIRECTORY")
	})
}

func processIdentity(rec store.Instance) process.Identity {
	proof := process.ProofStartTimeToken
	if rec.Proof == store.ProofPidfdInode {
		proof = process.ProofPidfdInode
	}
	return process.Identity{
		BootID:       rec.BootID,
		PID:          rec.PID,
		Inode:        rec.Inode,
		StartTicks:   rec.StartTicks,
		PIDNamespace: rec.PIDNamespace,
		Proof:        proof,
	}
}

// identified returns rec with the identity of its process.
func identified(rec store.Instance, id process.Identity) store.Instance {
	rec.PID, rec.Inode, rec.StartTicks = id.PID, id.Inode, id.StartTicks
	rec.BootID, rec.PIDNamespace = id.BootID, id.PIDNamespace
	rec.Proof = store.ProofStartTimeToken
	if id.Proof == process.ProofPidfdInode {
		rec.Proof = store.ProofPidfdInode
	}
	return rec
}

func exitRecord(e process.Exit) store.Exit {
	rec := store.Exit{Code: e.Code, Signal: int(e.Signal)}
	switch e.Source {
	case process.ExitWait:
		rec.Source = store.ExitWait
	case process.ExitPidfd:
		rec.Source = store.ExitPidfd
	case process.ExitStat:
		rec.Source = store.ExitStat
	case process.ExitUnknown:
		rec.Source = store.ExitUnknown
	}
	return rec
}
