package process

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const accountsSupported = true

// capabilityNames are the names of the capabilities, without CAP_, by their numbers: capabilities(7).
var capabilityNames = []string{
	unix.CAP_CHOWN: "CHOWN", unix.CAP_DAC_OVERRIDE: "DAC_OVERRIDE", unix.CAP_DAC_READ_SEARCH: "DAC_READ_SEARCH",
	unix.CAP_FOWNER: "FOWNER", unix.CAP_FSETID: "FSETID", unix.CAP_KILL: "KILL", unix.CAP_SETGID: "SETGID",
	unix.CAP_SETUID: "SETUID", unix.CAP_SETPCAP: "SETPCAP", unix.CAP_LINUX_IMMUTABLE: "LINUX_IMMUTABLE",
	unix.CAP_NET_BIND_SERVICE: "NET_BIND_SERVICE", unix.CAP_NET_BROADCAST: "NET_BROADCAST",
	unix.CAP_NET_ADMIN: "NET_ADMIN", unix.CAP_NET_RAW: "NET_RAW", unix.CAP_IPC_LOCK: "IPC_LOCK",
	unix.CAP_IPC_OWNER: "IPC_OWNER", unix.CAP_SYS_MODULE: "SYS_MODULE", unix.CAP_SYS_RAWIO: "SYS_RAWIO",
	unix.CAP_SYS_CHROOT: "SYS_CHROOT", unix.CAP_SYS_PTRACE: "SYS_PTRACE", unix.CAP_SYS_PACCT: "SYS_PACCT",
	unix.CAP_SYS_ADMIN: "SYS_ADMIN", unix.CAP_SYS_BOOT: "SYS_BOOT", unix.CAP_SYS_NICE: "SYS_NICE",
	unix.CAP_SYS_RESOURCE: "SYS_RESOURCE", unix.CAP_SYS_TIME: "SYS_TIME",
	unix.CAP_SYS_TTY_CONFIG: "SYS_TTY_CONFIG", unix.CAP_MKNOD: "MKNOD", unix.CAP_LEASE: "LEASE",
	unix.CAP_AUDIT_WRITE: "AUDIT_WRITE", unix.CAP_AUDIT_CONTROL: "AUDIT_CONTROL", unix.CAP_SETFCAP: "SETFCAP",
	unix.CAP_MAC_OVERRIDE: "MAC_OVERRIDE", unix.CAP_MAC_ADMIN: "MAC_ADMIN", unix.CAP_SYSLOG: "SYSLOG",
	unix.CAP_WAKE_ALARM: "WAKE_ALARM", unix.CAP_BLOCK_SUSPEND: "BLOCK_SUSPEND", unix.CAP_AUDIT_READ: "AUDIT_READ",
	unix.CAP_PERFMON: "PERFMON", unix.CAP_BPF: "BPF", unix.CAP_CHECKPOINT_RESTORE: "CHECKPOINT_RESTORE",
}

// capabilitySet has a bit for each capability.
type capabilitySet uint64

func (s capabilitySet) has(n int) bool { return s>>n&1 != 0 }

// capabilities returns the set that the attributes list.
func (a Attributes) capabilities() (set capabilitySet, err error) {
	for _, name := range a.Capabilities {
		n := slices.Index(capabilityNames, name)
		if n < 0 {
			return 0, fmt.Errorf("%q is no capability", name)
		}
		set |= 1 << n
	}
	return set, nil
}

// credential returns the user and groups to start with, or nil if they are those of this process.
func (r Rights) credential() *syscall.Credential {
	if r.User == "" && r.Group == "" {
		return nil
	}
	if os.Geteuid() != 0 && r.Account.UID == ownAccount().UID && r.Account.GID == ownAccount().GID {
		return nil // which another user than root may not set
	}
	return &syscall.Credential{Uid: r.Account.UID, Gid: r.Account.GID, Groups: r.Account.Groups}
}

// ambient returns the capabilities that a process of another user than root keeps over execve only if they are
// ambient. Root needs no ambient ones: execve gives it all of its bounding set.
func (r Rights) ambient() (list []uintptr) {
	if r.Account.UID == 0 {
		return nil
	}
	set, _ := r.capabilities() // restrict returns the error
	for n := range capabilityNames {
		if set.has(n) {
			list = append(list, uintptr(n))
		}
	}
	return list
}

// fork calls fork on a thread that has the nice value, the capabilities and no_new_privileges of the process to be
// started: a child inherits those of the thread that forks. No other thread ever gets them, because the thread ends
// here: see [onOwnThread].
//
// So the process has its nice value from its first instruction on, and in all of its threads. setpriority(2) after
// the fork would reach only one of the threads that it may have by then.
func (r Rights) fork(fork func() (int, error)) (pid int, err error) {
	if r.Nice == 0 && r.Capabilities == nil && !r.NoNewPrivileges {
		return fork()
	}
	onOwnThread(func() {
		if err = r.restrict(); err == nil {
			pid, err = fork()
		}
	})
	return pid, err
}

// onOwnThread calls f on a thread that runs nothing else and ends when f returns, so that f may change it in ways
// that cannot be taken back.
//
// It is never the main thread. That one cannot end, and would keep the changes: the capabilities in
// /proc/PID/status, for instance, are its own. The runtime makes no thread from a locked one, so no other thread
// inherits the changes.
func onOwnThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			onOwnThread(f) // on another thread, as this one is locked
			runtime.UnlockOSThread()
			return
		}
		f() // still locked at its end: that ends the thread
	}()
	<-done
}

// restrict gives the calling thread the nice value and the capabilities, and takes new privileges from it. The error
// names the key of the unit that cannot be fulfilled.
func (r Rights) restrict() error {
	if r.Nice != 0 {
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, r.Nice); err != nil {
			return fmt.Errorf("nice %d: %w: a value below that of the master needs CAP_SYS_NICE", r.Nice, err)
		}
	}
	if r.Capabilities != nil {
		if err := r.limitCapabilities(); err != nil {
			return fmt.Errorf("capabilities: %w", err)
		}
	}
	if r.NoNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("no_new_privileges: %w", err)
		}
	}
	return nil
}

// limitCapabilities takes all capabilities that are not listed from the sets from which the thread's child can get
// them by execve: the bounding set, the inheritable ones and with those the ambient ones. The thread keeps its
// permitted ones, which it needs to change the user.
func (r Rights) limitCapabilities() error {
	listed, err := r.capabilities()
	if err != nil {
		return err
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	permitted := capabilitySet(data[0].Permitted) | capabilitySet(data[1].Permitted)<<32
	var missing []string
	for n, name := range capabilityNames {
		if listed.has(n) && !permitted.has(n) {
			missing = append(missing, "CAP_"+name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("the master does not have %s and cannot pass it on", strings.Join(missing, ", "))
	}
	if err := r.limitBounding(listed); err != nil {
		return err
	}
	data[0].Inheritable &= uint32(listed)
	data[1].Inheritable &= uint32(listed >> 32)
	return unix.Capset(&header, &data[0])
}

// limitBounding drops all capabilities from the bounding set that are not listed. That needs CAP_SETPCAP. Without
// it, no_new_privileges has the same effect for a process of another user than root: no execve can give it a
// capability that it does not have when it starts.
func (r Rights) limitBounding(listed capabilitySet) error {
	const lastPossible = 63
	for n := range lastPossible + 1 {
		bounded, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0)
		switch {
		case errors.Is(err, unix.EINVAL): // the kernel has no more
			return nil
		case err != nil:
			return err
		case bounded == 0 || listed.has(n):
			continue
		}
		err = unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(n), 0, 0, 0)
		switch {
		case errors.Is(err, unix.EPERM) && r.NoNewPrivileges && r.Account.UID != 0:
			return nil
		case errors.Is(err, unix.EPERM):
			return fmt.Errorf("%w: to limit them the master needs CAP_SETPCAP, or, as another user than root, "+
				"the unit no_new_privileges: true", err)
		case err != nil:
			return err
		}
	}
	return nil
}
