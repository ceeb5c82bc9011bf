// Package process makes every operating system call about processes: it starts them, proves their identity,
// signals them, notices their death and finds those that an earlier master left behind. No package above it makes
// such system calls. All of it works on Linux 5.4 and later; on other systems the calls return an error that wraps
// [errors.ErrUnsupported], or do nothing.
//
// One rule holds everywhere: open first, then verify, then act through the opened handle. A [Process] is a pidfd
// that was opened before the evidence was read, so that the evidence and the signal concern the same process. A
// PID alone is only a hint.
//
// # Files
//
//   - One process is started (start, starthelper, attributes, confirm, inherited), proven (identity, pidfd), signalled
//     (signal) and watched until its end is known (watch, exit, orphans, handle).
//   - A family is found by the evidence of its members (family, lease) in one pass over all processes (census), which
//     skips those that cannot be read (glance) or were read before (sightings). It is killed (kill), and asked for its
//     ports and connections (ports, listeners, peer, owner), its usage (usage, resources) and its writers (appends).
//   - Others find processes by token (scan, elsewhere), by what an operator describes (discover), or at the other end
//     of a unix socket (connector).
//
// # Hazards
//
// Each of these has caused a real loss of a process. The facts about kernels come from the man pages named, from
// the kernel's source, or from a test on Linux 6.18.
//
//   - A PID can be reused within one clock tick, so the start time (field 22 of proc_pid_stat(5), 10 ms) alone proves
//     nothing. A pidfd's inode is unique per boot since Linux 6.9 (PID_FS_MAGIC); before, all pidfds share one inode.
//   - pidfd_open(2) of a number that names a thread returns ENOENT, or EINVAL in older kernels. No process has that
//     number as its PID, so the process is gone.
//   - State Z does not prove death: if a process's first thread ends before the others, the process shows state Z and
//     has neither environ nor descriptors. They must be read through task/*. A pidfd becomes readable once all threads
//     have ended, and only that is death.
//   - A child is a zombie until it is reaped. os.Process blocks a thread for each child; here the netpoller wakes one
//     goroutine, which reaps at once. waitid(2) by pidfd returns ECHILD if the process is not a child of this process.
//   - Another parent may never reap its child. Until it does, field 52 of stat has the exit status, but reads 0 without
//     ptrace access, as after a clean exit. Afterwards PIDFD_INFO_EXIT has the status (Linux 6.15), if the pidfd was
//     opened before. This package waits only some milliseconds for either. An unknown exit is [identity.ExitUnknown].
//   - kill(-pgid) may hit a foreign process group once the leader is reaped. PIDFD_SIGNAL_PROCESS_GROUP of
//     pidfd_send_signal(2) cannot (Linux 6.9).
//   - Between fork and execve a child of a dead master has the master's environment. But it also holds the master's
//     lock, so that a new master that has the lock never meets such a child. Inside execve, environ reads empty and
//     env_end (field 51) is 0: read again.
//   - A process controls its own environ: it may clear it (env -i), overwrite it (setproctitle) or hide it (undumpable,
//     setuid). Therefore each instance inherits a lease: a descriptor with a flock(2), which belongs to the open file
//     description and is held until the last copy is closed. A process that merely has the file open does not hold the
//     lease; fdinfo shows the difference (proc_pid_fdinfo(5), Linux 4.1).
//   - A parent PID names another process once the parent is dead. It is evidence only if the parent was held open
//     before the parent PID was read, and still is.
//   - Processes that fork and exit are gone before a list of /proc is worked off, and killing a parent destroys the
//     evidence about its children. So members are stopped as soon as they are seen, and killed when no more are found.
//   - The PIDs in a /proc of another PID namespace differ from those of this process's namespace.
//   - clone3 into a cgroup fails under filters such as systemd's RestrictNamespaces=. The process is then moved right
//     after the fork. Processes that it has forked by then are left to the sweep, which follows every cgroup.kill
//     (Linux 5.14).
//   - A child inherits the nice value, the capabilities and no_new_privs of the thread that forks. A thread that was
//     changed for that must end. The main thread cannot: it would stay as it is, and /proc/PID shows its capabilities.
//     The umask and resource limits are those of the whole process, and for them there is the start helper.
//   - prlimit(2) on a process of another user needs CAP_SYS_RESOURCE, also for root and also to lower a limit. Go
//     raises RLIMIT_NOFILE at its start, and syscall.Exec restores it unless syscall.Setrlimit was called.
package process
