// Package process makes every operating system call about processes: it starts
// them, proves who they are, signals them, learns of their death and finds those
// that an earlier master left behind. Nothing above it knows a system call. All of
// it works on Linux from 5.4 on; elsewhere every call says that it is unsupported.
//
// One rule holds everywhere: open first, then verify, then act through what was
// opened. A [Process] is a pidfd that was opened before the evidence was read, so
// that evidence and signal concern the same process; a number alone is a hint.
//
// # Hazards
//
// Each of these cost somebody a process. What is said of kernels is from the man
// pages named, from the kernel's source, or was tried (6.18).
//
//   - A PID is reused, within one clock tick if need be, so that start time (field
//     22 of proc_pid_stat(5), 10 ms) proves nothing alone. A pidfd's inode is unique
//     per boot since Linux 6.9 (PID_FS_MAGIC); before, all pidfds share one.
//   - pidfd_open(2) of a number that names a thread gives ENOENT, EINVAL in older
//     kernels. Nobody has that PID, so that the process is gone.
//   - State Z proves no death: a first thread that ended before the others shows Z,
//     and has neither environ nor descriptors. They are read through task/*. A pidfd
//     polls readable once all threads have ended, which is death.
//   - A child is a zombie until it is reaped. With os.Process a thread waits for
//     each; here the netpoller wakes one goroutine, which reaps at once. waitid(2) by
//     pidfd gives ECHILD where the process is not a child of ours.
//   - A foreign parent may never reap. Before it does, field 52 of stat has the exit
//     status, but reads 0 without ptrace access, like a clean exit; afterwards
//     PIDFD_INFO_EXIT has it (Linux 6.15), if the pidfd was opened before. Neither is
//     waited for but for some milliseconds. What is not known is [ExitUnknown].
//   - kill(-pgid) may hit a stranger's group once the leader is reaped.
//     PIDFD_SIGNAL_PROCESS_GROUP of pidfd_send_signal(2) cannot (Linux 6.9).
//   - Between fork and execve a child of a dead master has the master's environment,
//     but the master's lock as well, so that whoever holds the lock does not meet it.
//     Inside execve environ reads empty and env_end (field 51) is 0: ask again.
//   - environ is what the process makes of it: cleared (env -i), overwritten
//     (setproctitle) or hidden (undumpable, setuid). Hence the lease: an inherited
//     descriptor with a flock(2), which belongs to the open file description and is
//     held until its last copy is closed. To have the file open is not to hold it;
//     fdinfo tells (proc_pid_fdinfo(5), Linux 4.1).
//   - A parent PID names another process once the parent is dead. It counts while
//     the parent is held open since before it was read.
//   - Processes that fork and exit are gone before a list of /proc is worked off, and
//     a killed parent takes the evidence about its children along. So members are
//     stopped the moment they are seen, and killed when no more are found.
//   - With a /proc of another PID namespace its numbers are others than ours.
//   - clone3 into a cgroup fails under filters such as RestrictNamespaces= of
//     systemd; the process is moved right after the fork then, and what it has forked
//     by then is left to the sweep, which follows every cgroup.kill (Linux 5.14).
//   - Reading /proc/net/tcp walks through all connections to find the listeners:
//     milliseconds, where sock_diag(7) takes a tenth of one.
package process
