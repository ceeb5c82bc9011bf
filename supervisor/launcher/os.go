package launcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/safefile"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/cgroup"
	"github.com/core-tools/hsu-master/supervisor/notify"
	"github.com/core-tools/hsu-master/supervisor/placement"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/process/executable"
	"github.com/core-tools/hsu-master/supervisor/process/oneshot"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// Options describe the master to its launcher.
type Options struct {
	MasterID   string
	StateDir   func() string // current device:inode
	RuntimeDir string        // holds the leases
	LogDir     string        // holds the workers' output files
	Environ    []string      // of the master; see [workerEnviron]
	Log        *slog.Logger

	// Journal is the socket of journald; empty means [logs.JournalSocket].
	Journal string
}

// osLauncher is the launcher on the operating system.
type osLauncher struct {
	Options
	cgroups *placement.Cgroups
	stream  string // $JOURNAL_STREAM of the master
}

// New returns the launcher of a master.
func New(opts Options) Launcher {
	stream := valueOf(opts.Environ, envJournalStream)
	opts.Environ = workerEnviron(opts.Environ)
	return &osLauncher{Options: opts, cgroups: placement.New(opts.MasterID, opts.Log), stream: stream}
}

// NewInspector returns an inspector for another process than the master, whose own cgroup it does not know.
func NewInspector(opts Options) Inspector {
	return &osLauncher{Options: opts, cgroups: placement.Find(opts.MasterID)}
}

// LeasePath returns the path of the lease of a worker, or of a hook with an id of its own. The ids of workers end in a
// number, so no two leases have the same path.
func LeasePath(runtimeDir, id string) string {
	return filepath.Join(runtimeDir, strings.ReplaceAll(id, "/", ".")+".lease")
}

func (l *osLauncher) leasePath(worker string) string { return LeasePath(l.RuntimeDir, worker) }

func (l *osLauncher) Lease(worker string) (*process.Lease, error) {
	// The directory may have been deleted. Its parents are not created: a missing state directory may come back.
	if err := safefile.Mkdir(l.RuntimeDir); err != nil {
		return nil, fmt.Errorf("make the folder of leases: %w", err)
	}
	return process.CreateLease(l.leasePath(worker))
}

func (l *osLauncher) Start(
	u *unit.Spec, worker string, rec records.Instance, lease *process.Lease, file *os.File,
) (Instance, error) {
	// Check at each start: the file may have been replaced.
	path, exe, err := u.Executable()
	if err != nil {
		return nil, err
	}
	if path, err = filepath.Abs(path); err != nil { // the worker may run in another folder
		return nil, fmt.Errorf("find the worker's executable: %w", err)
	}
	args, env, err := u.Launch(worker, rec.Port)
	if err != nil {
		return nil, err
	}
	rights, err := u.Attributes.Resolve()
	if err != nil {
		return nil, err
	}
	if rights.Account.UID != rec.UID { // recovery would not recognise the worker
		return nil, fmt.Errorf("user %s has become user %d of this host since the start was recorded with %d",
			u.Attributes.User, rights.Account.UID, rec.UID)
	}
	to := output{out: file, close: func() {}}
	if file == nil {
		if to, err = l.open(worker, u.Log.To); err != nil {
			return nil, err
		}
	}
	defer to.close() // the child has its own descriptors
	group, err := l.confine(worker, rec, u.Limits)
	if err != nil {
		return nil, err
	}
	defer group.placed()
	env = slices.Concat(to.env, accountEnv(rights), env)
	p, err := process.Start(process.Spec{
		Path:    path,
		Args:    args,
		Env:     override(l.environ(worker, rec.Token, env), notifyEnv(rec.Notify)),
		Dir:     u.Dir,
		Output:  to.out,
		Errors:  to.errors,
		Lease:   lease,
		Cgroup:  group.dir,
		Confine: group.confine,
		Exe:     exe,
		Rights:  rights,
	})
	if err != nil {
		if placement.Vanished(group.dir) {
			err = fmt.Errorf("%w: %w", ErrOwnFault, err)
		}
		return nil, errors.Join(err, removeCgroup(group.dir))
	}
	inst := l.instance(worker, rec, p)
	inst.fallback = to.fallback
	return inst, nil
}

// environ returns the environment of an instance: that of the master, the variables of its unit, and those by which a
// master finds it.
func (l *osLauncher) environ(id, token string, variables []string) []string {
	return override(l.Environ, append(variables,
		process.EnvMasterID+"="+l.MasterID,
		process.EnvStateDir+"="+l.StateDir(),
		process.EnvWorkerID+"="+id,
		process.EnvWorkerToken+"="+token))
}

// notifyEnv returns the variables of sd_notify(3). WATCHDOG_PID is left out: it means any process of the worker.
func notifyEnv(n *records.Notify) (env []string) {
	if n == nil {
		return nil
	}
	env = append(env, notify.EnvSocket+"="+n.Path)
	if n.Watchdog > 0 {
		env = append(env, notify.EnvWatchdog+"="+strconv.FormatInt(n.Watchdog.Microseconds(), 10))
	}
	return env
}

// accountEnv returns the variables that a login sets for the user of the attributes.
func accountEnv(r process.Rights) (env []string) {
	if r.Account.Name != "" {
		env = append(env, "USER="+r.Account.Name, "LOGNAME="+r.Account.Name)
	}
	if r.Account.Home != "" {
		env = append(env, "HOME="+r.Account.Home)
	}
	return env
}

func (l *osLauncher) Run(ctx context.Context, c Command, id, token string) (oneshot.Ran, error) {
	rights, err := c.Attributes.Resolve()
	if err != nil {
		return oneshot.Ran{}, err
	}
	path := c.Path
	if !filepath.IsAbs(path) {
		path = filepath.Join(c.Dir, path)
	}
	exe, err := executable.Check(path, rights.Account.UID)
	if err != nil {
		return oneshot.Ran{}, err
	}
	spec := oneshot.Spec{Patience: c.Patience, Hurry: c.Hurry, Spec: process.Spec{
		Path: c.Path, Args: c.Args, Env: l.environ(id, token, append(accountEnv(rights), c.Env...)), Dir: c.Dir,
		Lease: c.Lease, Exe: exe, Rights: rights,
	}}
	if c.Log != "" {
		to, err := l.open(c.Log, c.LogTo)
		if err != nil {
			return oneshot.Ran{}, err
		}
		defer to.close() // the command has its own descriptors
		spec.Output, spec.Errors, spec.Env = to.out, to.errors, override(to.env, spec.Env)
	}
	if c.Input == nil {
		return oneshot.Run(ctx, spec, token)
	}
	return runWithInput(ctx, spec, token, c.Input)
}

// runWithInput runs a command that reads the input from stdin, or does not. The command has all of the input from its
// start on, also if this process is killed.
func runWithInput(ctx context.Context, spec oneshot.Spec, token string, input []byte) (oneshot.Ran, error) {
	stdin, err := process.InputOf(input)
	if err != nil {
		err = fmt.Errorf("start %s: make its input: %w", spec.Path, err)
		return oneshot.Ran{}, errors.Join(err, spec.Lease.Close())
	}
	spec.Input = stdin
	ran, err := oneshot.Run(ctx, spec, token)
	return ran, errors.Join(err, stdin.Close())
}

func (l *osLauncher) Attach(worker string, rec records.Instance) (Instance, error) {
	p, err := process.Open(rec.Process, rec.Token)
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
// lease, its port, if it has one, must also have no listener that is invisible here.
func (l *osLauncher) search(worker string, rec records.Instance) (*process.Process, error) {
	ctx, cancel := context.WithTimeout(context.Background(), searchTimeout)
	defer cancel()
	p, err := process.Search(ctx, rec.Process, rec.Token)
	if !errors.Is(err, process.ErrUnverifiable) {
		return p, err
	}
	const next = "start a master where it ran, or reboot if it is certainly gone"
	held, leaseErr := process.LeaseHeld(l.leasePath(worker), rec.Lease)
	switch {
	case leaseErr != nil:
		return nil, fmt.Errorf("%w, and its lease tells nothing: %w: %s", err, leaseErr, next)
	case held:
		return nil, fmt.Errorf("%w, and its lease is held: it lives: start a master where it runs", err)
	}
	if rec.Port != 0 {
		hidden, portErr := process.PortHidden(ctx, rec.Port)
		switch {
		case portErr != nil:
			return nil, fmt.Errorf("%w: %w: %s", err, portErr, next)
		case hidden:
			return nil, fmt.Errorf("%w, but somebody unseen listens on its port %d: %s", err, rec.Port, next)
		}
	}
	return nil, fmt.Errorf("%w: nobody holds its lease: it was %d of pid namespace %d",
		process.ErrGone, rec.PID, rec.PIDNamespace)
}

func (l *osLauncher) AttachFound(worker string, pid int, rec records.Instance) (Instance, identity.Process, error) {
	p, err := process.OpenPID(pid)
	if err != nil {
		return nil, identity.Process{}, err
	}
	// Asked before too: a helper that has seen the end of its master may end right after it was verified, and has no
	// arguments then.
	helper := p.InStartHelper()
	err = p.Verify(rec.Token)
	if err == nil && (helper || p.InStartHelper()) {
		// Its master is dead. It ends by itself, or executes the program, which is not kept then.
		err = fmt.Errorf("%w: process %d has not executed its program", process.ErrGone, pid)
	}
	if err != nil {
		return nil, identity.Process{}, errors.Join(err, p.Close())
	}
	return l.instance(worker, rec, p), p.Identity(), nil
}

func (l *osLauncher) Identify(pid int) (identity.Process, error) { return process.Identify(pid) }

func (l *osLauncher) Left(
	ctx context.Context, worker string, rec records.Instance, seen bool,
) (string, []process.Holder, error) {
	family, lease := l.family(worker, rec), leaseUnknown
	if family.LeasePath != "" {
		switch held, err := process.LeaseHeld(family.LeasePath, family.Lease); {
		case held:
			lease = LeaseHeld
		case err == nil:
			lease = LeaseFree
		}
	}
	if lease != LeaseHeld && !seen && family.Cgroup == "" {
		return lease, nil, nil
	}
	members, err := family.Members(ctx)
	return lease, members, err
}

func (l *osLauncher) Owner(worker string, rec records.Instance, port int) (process.Ownership, error) {
	return l.family(worker, rec).OwnsPort(port)
}

func (l *osLauncher) Holds(worker string, rec records.Instance, pid int) bool {
	return process.HoldsLease(pid, l.leasePath(worker), rec.Lease)
}

func (l *osLauncher) Sweep(ctx context.Context, worker string, rec records.Instance) ([]process.Holder, error) {
	return killFamily(ctx, l.family(worker, rec))
}

func (l *osLauncher) Measure(ctx context.Context, subjects []Subject) ([]process.Resources, error) {
	families := make([]process.Family, 0, len(subjects))
	for _, s := range subjects {
		families = append(families, l.family(s.Worker, s.Instance))
	}
	return process.Measure(ctx, families)
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
	return cgroup.Remove(path)
}

// cgroupName returns a name that is unique to the instance and follows from its record.
func cgroupName(worker string, rec records.Instance) string { return worker + "." + rec.Token }

func (l *osLauncher) instance(worker string, rec records.Instance, p *process.Process) *osInstance {
	family := l.family(worker, rec)
	family.Leader, family.Main = p.PID(), p
	family.Session, family.StartTicks = p.PID(), p.Identity().StartTicks
	return &osInstance{
		osProcess: osProcess{p}, osFamily: osFamily{family, l.noCgroup(family.Cgroup)}, osOutput: osOutput{process: p},
	}
}

func (l *osLauncher) family(worker string, rec records.Instance) process.Family {
	family := process.Family{
		Token: rec.Token, Lease: rec.Lease,
		Session: rec.PID, UID: rec.UID, StartTicks: rec.StartTicks,
	}
	if rec.Lease != (identity.FileID{}) {
		family.LeasePath = l.leasePath(worker)
	}
	family.Cgroup = l.cgroups.Of(cgroupName(worker, rec))
	return family
}

// override returns the entries of base and more, without those of base that more has too.
func override(base, more []string) []string {
	given := make(map[string]bool, len(more))
	for _, entry := range more {
		name, _, _ := strings.Cut(entry, "=")
		given[name] = true
	}
	all := make([]string, 0, len(base)+len(more))
	for _, entry := range base {
		if name, _, _ := strings.Cut(entry, "="); !given[name] {
			all = append(all, entry)
		}
	}
	return append(all, more...)
}

// workerEnviron removes the entries of base that are meant for the master alone: its own variables, those of
// systemd's notification protocols, and the paths of its credentials and other directories.
func workerEnviron(base []string) []string {
	return slices.DeleteFunc(slices.Clone(base), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		switch name {
		case notify.EnvSocket, envJournalStream:
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
