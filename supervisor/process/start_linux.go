package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/eintr"
	"github.com/core-tools/hsu-master/supervisor/cgroup"
	"github.com/core-tools/hsu-master/supervisor/process/executable"
	"github.com/core-tools/hsu-master/supervisor/process/internal/kernel"
)

// Start starts a process that can outlive this one: it has a session of its own, stdin, stdout and stderr from and to
// the files of the spec, the lease at descriptor 3, and no parent-death signal. Start returns when the
// program runs. If the executable is missing or unusable, it returns an error and no process remains.
//
// Start may be called concurrently. The lease stays open in this process: close it afterwards, or it is held for
// as long as this process lives.
func Start(spec Spec) (*Process, error) {
	p, err := start(spec)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Path, err)
	}
	return p, nil
}

func start(spec Spec) (*Process, error) {
	if err := checkSupport(); err != nil {
		return nil, err
	}
	// Each start opens its own /dev/null: a shared descriptor would be one more that could leak through an upgrade in
	// place.
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	defer unix.Close(null)
	files := []uintptr{uintptr(null), uintptr(null), uintptr(null)}
	if spec.Input != nil {
		// Fd sets the file to blocking mode. Without that, a program that reads before the input is written fails.
		files[0] = spec.Input.Fd()
	}
	if spec.Output != nil {
		files[1], files[2] = spec.Output.Fd(), spec.Output.Fd()
	}
	if spec.Errors != nil {
		files[2] = spec.Errors.Fd()
	}
	switch {
	case spec.Lease != nil:
		fd, err := spec.Lease.descriptor()
		if err != nil {
			return nil, err
		}
		files = append(files, fd)
	case spec.Leash != nil:
		files = append(files, spec.Leash.Fd())
	}
	return launch(spec, files)
}

// launch starts the program, by a helper if its rights need one, and returns when it runs.
func launch(spec Spec, files []uintptr) (*Process, error) {
	fd := -1
	attr := &syscall.ProcAttr{
		Dir: spec.Dir, Env: spec.Env, Files: files,
		Sys: &syscall.SysProcAttr{
			Setsid: true, PidFD: &fd, Credential: spec.Rights.credential(), AmbientCaps: spec.Rights.ambient(),
		},
	}
	path, argv := spec.Path, append([]string{spec.Path}, spec.Args...)
	var by *helper
	if spec.Rights.needsHelper() || spec.Cgroup != "" && !clonesIntoCgroup() && mayHelp.Load() {
		var err error
		if by, err = newHelper(spec.Rights); err != nil {
			return nil, err
		}
		defer func() { _ = by.close() }() // nothing is sent any more
		if path, argv, err = by.command(spec); err != nil {
			return nil, err
		}
		for len(attr.Files) < helperSocket {
			attr.Files = append(attr.Files, ^uintptr(0)) // none
		}
		attr.Files = append(attr.Files, by.end.Fd())
	} else if err := spec.confine(); err != nil {
		return nil, err
	}
	pid, err := fork(spec, path, argv, attr)
	// The child has its copies now; until here the descriptors had to stay open.
	runtime.KeepAlive(spec.Input)
	runtime.KeepAlive(spec.Output)
	runtime.KeepAlive(spec.Errors)
	runtime.KeepAlive(spec.Lease)
	runtime.KeepAlive(spec.Leash)
	if err != nil {
		return nil, explainStart(spec, err)
	}
	defer watched.remove(pid)
	if by != nil {
		err = by.finish(pid, spec)
	}
	if err != nil {
		err = explainStart(spec, err)
	} else {
		err = confirm(pid, spec)
	}
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		discard(pid)
		return nil, err
	}
	return adopt(pid, fd)
}

// fork starts the program with package syscall, because os.Process would block a thread in wait for each child.
// Like any other fork it holds syscall.ForkLock. The caller has to remove the child from the watched processes.
func fork(spec Spec, path string, argv []string, attr *syscall.ProcAttr) (int, error) {
	if attr.Env == nil {
		attr.Env = []string{} // nil would mean this process's environment
	}
	watched.starting.RLock()
	defer watched.starting.RUnlock()
	var pid int
	err := crashpoint.Do(crashpoint.Fork, func() (err error) {
		pid, err = spec.Rights.fork(func() (int, error) {
			return withoutMask(func() (int, error) { return forkInto(spec.Cgroup, path, argv, attr) })
		})
		return err
	})
	if err == nil {
		watched.add(pid)
	}
	return pid, err
}

// clonesIntoCgroup reports whether a process can be started inside a cgroup. clone3 is refused before Linux 5.3 and by
// filters that cannot inspect its arguments, such as systemd's RestrictNamespaces=. Then a start helper is started and
// moved, and executes the program in the cgroup, so that no descendant is ever outside of it.
func clonesIntoCgroup() bool { return !kernel.Withheld.CgroupClone.Load() && takesClone3() }

var takesClone3 = sync.OnceValue(func() bool {
	_, _, errno := unix.RawSyscall(unix.SYS_CLONE3, 0, 0, 0) // EINVAL for these arguments
	return errno != unix.ENOSYS && errno != unix.EPERM
})

// forkInto starts the program, inside its cgroup if it has one.
func forkInto(group, path string, argv []string, attr *syscall.ProcAttr) (int, error) {
	if group == "" {
		pid, _, err := syscall.StartProcess(path, argv, attr)
		return pid, err
	}
	dir, err := unix.Open(group, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open cgroup %s: %w", group, err)
	}
	defer unix.Close(dir)
	attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, dir
	pid, err := 0, error(unix.ENOSYS)
	if clonesIntoCgroup() {
		pid, _, err = syscall.StartProcess(path, argv, attr)
	}
	// Linux 5.3 to 5.6 has a clone3 without cgroups.
	if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.E2BIG) {
		return pid, err
	}
	attr.Sys.UseCgroupFD = false
	pid, _, err = syscall.StartProcess(path, argv, attr)
	if err != nil {
		return 0, err
	}
	if err := cgroup.Join(group, pid); err != nil {
		discard(pid)
		return 0, fmt.Errorf("move it to cgroup %s: %w", group, err)
	}
	return pid, nil
}

// adopt makes a handle for a child that has just been started. The child keeps its PID until this process reaps
// it.
func adopt(pid, fd int) (*Process, error) {
	var err error
	if fd >= 0 {
		err = unix.SetNonblock(fd, true)
	} else if fd, err = openPidfd(pid); err != nil { // Linux before 5.2, which checkSupport refuses
		discard(pid)
		return nil, err
	}
	var id identity.Process
	if err == nil {
		id, err = identify(fd, pid)
	}
	if err != nil {
		unix.Close(fd)
		discard(pid)
		return nil, fmt.Errorf("identify the new process %d: %w", pid, err)
	}
	p, err := watch(fd, id, learn)
	if err != nil {
		discard(pid)
		return nil, err
	}
	return p, nil
}

// discard kills and reaps a child that cannot be used.
func discard(pid int) {
	_ = crashpoint.Do(crashpoint.Signal, func() error {
		return unix.Kill(pid, unix.SIGKILL) // a child that is not reaped keeps its PID
	})
	_, _ = eintr.Retry(func() (int, error) { return unix.Wait4(pid, nil, 0, nil) })
}

// explainStart adds the likely cause to a bare errno from the child.
func explainStart(spec Spec, err error) error {
	if spec.Dir != "" &&
		(errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.ENOTDIR)) {
		if info, e := os.Stat(spec.Dir); e != nil {
			return fmt.Errorf("working folder: %w", e)
		} else if !info.IsDir() {
			return fmt.Errorf("working folder %s: %w", spec.Dir, unix.ENOTDIR)
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		if e := executable.CheckInterpreters(spec.Path); e != nil {
			return e
		}
	case errors.Is(err, unix.EAGAIN):
		return fmt.Errorf("no more processes are allowed here (RLIMIT_NPROC, TasksMax= or pid_max): %w", err)
	case errors.Is(err, unix.ENOEXEC):
		return fmt.Errorf("not an executable for this machine, or a script without #!: %w", err)
	case errors.Is(err, unix.EISDIR), errors.Is(err, unix.EACCES):
		if info, e := os.Stat(spec.Path); e == nil && info.IsDir() {
			return unix.EISDIR
		}
	}
	return explainUser(spec, err)
}

// explainUser adds the likely cause to an errno from the child of another user.
func explainUser(spec Spec, err error) error {
	if spec.Rights.credential() == nil {
		return err
	}
	uid := spec.Rights.Account.UID
	errno, _ := err.(syscall.Errno) //nolint:errorlint // a wrapped one is from another call
	if errno == unix.EACCES {
		return fmt.Errorf("%w: user %d must be allowed to enter the folders and to execute the file", err, uid)
	}
	if errno == unix.EPERM {
		return fmt.Errorf("%w: to run it as user %d, the master needs CAP_SETUID and CAP_SETGID", err, uid)
	}
	return err
}
