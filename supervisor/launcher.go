package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// launcher starts processes and finds recorded ones again.
type launcher interface {
	looker
	// lease makes the lease that an instance of the worker will hold.
	lease(worker string) (*process.Lease, error)
	// start forks the instance that rec describes.
	start(u Unit, worker string, rec store.Instance, lease *process.Lease) (instance, error)
	// sweep ends what is left of the family of an instance that is gone, and
	// returns who is left.
	sweep(ctx context.Context, worker string, rec store.Instance) ([]process.Holder, error)
}

// instance is one process and its family: all that descends from it.
type instance interface {
	Identity() process.Identity
	// Done is closed when the process has ended.
	Done() <-chan struct{}
	// Exit is how it ended; valid after Done.
	Exit() process.Exit
	// Suspended tells that a signal has stopped it.
	Suspended() bool
	// Terminate asks the process group to end.
	Terminate() error
	// TerminateRest asks descendants to end that have left the group.
	TerminateRest(ctx context.Context) error
	// Survived tells, at little cost, that descendants of it still live: those that
	// have kept the lease.
	Survived() bool
	// Kill ends the process and its family and returns who is left.
	Kill(ctx context.Context) ([]process.Holder, error)
	// OwnsPort tells whose the listeners on the port are.
	OwnsPort(port int) (process.Ownership, error)
	// Handle is for a [Keeper].
	Handle() (*os.File, error)
	// Close lets go of it without touching it.
	Close() error
}

type osLauncher struct {
	masterID           string
	stateDir           func() string // device:inode, now
	runtimeDir, logDir string
	environ            []string
	// cgroups is the folder of a cgroup tree that is ours to manage, one below it
	// for each instance; empty where nobody gave us one.
	cgroups string
}

func (l *osLauncher) leasePath(worker string) string {
	return filepath.Join(l.runtimeDir, worker+".lease")
}

func logPath(dir, worker string) string { return filepath.Join(dir, worker+".log") }

// remake makes a folder that somebody may have tidied up. Not its parents: where the
// state folder itself is missing it may have been moved, and will come back.
func remake(dir string) error {
	if err := os.Mkdir(dir, 0o700); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func (l *osLauncher) lease(worker string) (*process.Lease, error) {
	if err := remake(l.runtimeDir); err != nil {
		return nil, fmt.Errorf("make the folder of leases: %w", err)
	}
	return process.CreateLease(l.leasePath(worker))
}

func (l *osLauncher) start(u Unit, worker string, rec store.Instance, lease *process.Lease) (instance, error) {
	path, err := filepath.Abs(u.Path)
	if err != nil {
		return nil, fmt.Errorf("find the worker's executable: %w", err)
	}
	// Each time: it may have been replaced since the last.
	if err := checkExecutable(path); err != nil {
		return nil, err
	}
	// A file, not a pipe: a worker must not die of SIGPIPE when the master does.
	var output *os.File
	if err := remake(l.logDir); err != nil {
		return nil, fmt.Errorf("%w: make the folder of logs: %w", errOwnFault, err)
	}
	err = crashpoint.Do(crashpoint.LogOpen, func() (err error) {
		output, err = os.OpenFile(logPath(l.logDir, worker), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
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

// search settles an instance whose number counts in another PID namespace: in a
// container that is no more, or on the host, seen from a container. Where it is not
// to be seen it is gone only if all else agrees: a lock is seen across namespaces,
// so nobody must hold its lease, and, in case it has closed that, its port too must
// have no listener that is not to be seen.
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
	return nil, fmt.Errorf("%w: nobody holds its lease: it was %d of pid namespace %d", process.ErrGone, rec.PID, rec.PIDNamespace)
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

func (l *osLauncher) left(ctx context.Context, worker string, rec store.Instance, seen bool) (string, []process.Holder, error) {
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

// killFamily also removes the cgroup once it is empty.
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

// cgroupName is unique to the instance, and found again by its record.
func cgroupName(worker string, rec store.Instance) string { return worker + "." + rec.Token }

func (l *osLauncher) instance(worker string, rec store.Instance, p *process.Process) instance {
	family := l.family(worker, rec)
	family.Leader, family.Main = p.PID(), p
	return &osInstance{Process: p, family: family}
}

func (l *osLauncher) family(worker string, rec store.Instance) process.Family {
	family := process.Family{Token: rec.Token, Lease: process.FileID(rec.Lease)}
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
	// SIGCONT after it: a stopped process acts on SIGTERM only when it goes on.
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

// workerEnviron leaves out of base what is meant for the master alone: its own
// variables, what systemd told it, and where its credentials are.
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

// identified returns rec with the identity of the process that fills it.
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
