// Package procfs reads /proc/PID: what processes are, which files they have open, and their environments. It trusts
// nothing that a process can change, and knows the cases in which a first thread has ended before the others.
package procfs

import (
	"bytes"
	"errors"
	"strconv"
	"time"
)

// Stat holds the fields of /proc/PID/stat that this program uses (proc_pid_stat(5)).
type Stat struct {
	PID, PPID, PGID, SID int
	State                byte
	Flags                uint32 // PF_* of the kernel
	Threads              int    // includes the first thread until the process is reaped, even if that thread has ended
	StartTicks           uint64
	EnvEnd               uint64 // address; 0 inside execve, and without ptrace access
	ExitCode             int    // wait status; 0 without ptrace access
	CPUTicks             uint64 // user and system time, its own and that of its reaped children
	ResidentPages        int64  // of its memory; 0 if the first thread has ended
}

// Tick is the unit of the times in /proc: USER_HZ is 100 on every architecture that Go supports.
const Tick = 10 * time.Millisecond

// kernelThread is PF_KTHREAD of linux/sched.h.
const kernelThread = 0x00200000

// Numbers of fields of /proc/PID/stat, from the first one after the command name.
const (
	fieldState      = 3
	fieldPPID       = 4
	fieldPGID       = 5
	fieldSID        = 6
	fieldFlags      = 9
	fieldUserTime   = 14 // followed by the system time, and by both of the reaped children
	fieldChildTime  = 17
	fieldThreads    = 20
	fieldStartTicks = 22
	fieldResident   = 24
	fieldEnvEnd     = 51
	fieldExitCode   = 52
)

var (
	errStat   = errors.New("not a line of /proc/PID/stat")
	errStatus = errors.New("no user in /proc/PID/status")
)

// ParseStat reads one line of /proc/PID/stat. The command name may contain any characters, including parentheses,
// spaces and newlines, so only the last ")" ends it.
func ParseStat(line []byte) (Stat, error) {
	var s Stat
	open, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 1 || end < open {
		return s, errStat
	}
	var err error
	if s.PID, err = strconv.Atoi(string(bytes.TrimSpace(line[:open]))); err != nil || s.PID < 1 {
		return s, errStat
	}
	rest := line[end+1:]
	for n := fieldState; n <= fieldExitCode; n++ {
		rest = bytes.TrimLeft(rest, " \n")
		length := bytes.IndexAny(rest, " \n")
		if length < 0 {
			length = len(rest)
		}
		if length == 0 {
			return s, errStat
		}
		field := string(rest[:length])
		rest = rest[length:]
		switch n {
		case fieldState:
			if len(field) != 1 {
				return s, errStat
			}
			s.State = field[0]
		case fieldPPID:
			s.PPID, err = strconv.Atoi(field)
		case fieldPGID:
			s.PGID, err = strconv.Atoi(field)
		case fieldSID:
			s.SID, err = strconv.Atoi(field)
		case fieldFlags:
			var flags uint64
			flags, err = strconv.ParseUint(field, 10, 32)
			s.Flags = uint32(flags)
		case fieldUserTime, fieldUserTime + 1, fieldUserTime + 2, fieldChildTime:
			var ticks uint64
			ticks, err = strconv.ParseUint(field, 10, 64)
			s.CPUTicks += ticks
		case fieldThreads:
			s.Threads, err = strconv.Atoi(field)
		case fieldStartTicks:
			s.StartTicks, err = strconv.ParseUint(field, 10, 64)
		case fieldResident:
			s.ResidentPages, err = strconv.ParseInt(field, 10, 64)
		case fieldEnvEnd:
			s.EnvEnd, err = strconv.ParseUint(field, 10, 64)
		case fieldExitCode:
			s.ExitCode, err = strconv.Atoi(field)
		}
		if err != nil {
			return s, errStat
		}
	}
	return s, nil
}

// UserOf returns the real and the effective UID from the text of /proc/PID/status (proc_pid_status(5)).
func UserOf(status []byte) (realUID, effective uint32, err error) {
	_, rest, _ := bytes.Cut(status, []byte("\nUid:"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	words := bytes.Fields(line)
	if len(words) < 2 {
		return 0, 0, errStatus
	}
	ids := [2]uint32{}
	for i := range ids {
		id, err := strconv.ParseUint(string(words[i]), 10, 32)
		if err != nil {
			return 0, 0, errStatus
		}
		ids[i] = uint32(id)
	}
	return ids[0], ids[1], nil
}

// KernelThread reports whether the task is a thread of the kernel.
func (s Stat) KernelThread() bool { return s.Flags&kernelThread != 0 }

// Ended reports whether the task itself has exited; other threads of its process may live on.
func (s Stat) Ended() bool { return s.State == 'Z' || s.State == 'X' || s.State == 'x' }

// Stopped reports whether the task is stopped, by a signal or by a debugger, until it is continued.
func (s Stat) Stopped() bool { return s.State == 'T' || s.State == 't' }

// Blocked reports whether the task waits in the kernel and cannot be interrupted, mostly for a disk.
func (s Stat) Blocked() bool { return s.State == 'D' }

// maxValue bounds the length of a value from a process's environment. The values that a master sets are shorter.
const maxValue = 256

// LookupEnv returns the first value of name in the text of an environment, as getenv would. It returns false if
// the value is empty, too long, or contains anything but visible ASCII: another process chose it, and it will be
// logged and compared.
func LookupEnv(environ []byte, name string) (string, bool) {
	for at := 0; at < len(environ); {
		i := bytes.Index(environ[at:], []byte(name))
		if i < 0 {
			return "", false
		}
		start, end := at+i, at+i+len(name)
		at = end
		if start > 0 && environ[start-1] != 0 || end >= len(environ) || environ[end] != '=' {
			continue
		}
		value := environ[end+1:]
		if stop := bytes.IndexByte(value, 0); stop >= 0 {
			value = value[:stop]
		}
		if len(value) == 0 || len(value) > maxValue {
			return "", false
		}
		for _, c := range value {
			if c <= ' ' || c > '~' {
				return "", false
			}
		}
		return string(value), true
	}
	return "", false
}

// ownNamespace reports whether a /proc shows PIDs of the reader's own PID namespace. status is the text that this
// /proc shows of the reader itself: NSpid lists the reader's PID in the namespace of /proc and in each namespace
// below it, down to the reader's own (Linux 4.1).
func ownNamespace(status []byte) bool {
	for line := range bytes.Lines(status) {
		if rest, found := bytes.CutPrefix(line, []byte("NSpid:")); found {
			return len(bytes.Fields(rest)) <= 1
		}
	}
	return true
}

// Locked reports whether the text of /proc/PID/fdinfo/N shows the lock of a lease holder: an exclusive flock of
// this very description (proc_pid_fdinfo(5), rows as in proc_locks(5)). Other locks are those of foreign
// processes: LeaseHeld takes a shared lock for a moment, and a backup may take one of fcntl(2).
func Locked(fdinfo []byte) bool {
	for line := range bytes.Lines(fdinfo) {
		// lock: number, kind, advisory or not, access, pid, file, first byte, last byte
		fields := bytes.Fields(line)
		if len(fields) > 4 && string(fields[0]) == "lock:" && string(fields[2]) == "FLOCK" &&
			string(fields[4]) == "WRITE" {
			return true
		}
	}
	return false
}

// The flags of an open file description in fdinfo, as Linux numbers them on all of its architectures that Go supports
// (asm-generic/fcntl.h); package syscall has those of the system that this program is built for.
const (
	accessMode = 0o3
	readOnly   = 0o0
	appendFlag = 0o2000
)

// WritesAnywhere reports whether an open file description is for writing and has no O_APPEND, from the text of its
// fdinfo (proc_pid_fdinfo(5)). It is true if the text does not tell.
func WritesAnywhere(fdinfo []byte) bool {
	for line := range bytes.Lines(fdinfo) {
		text, found := bytes.CutPrefix(line, []byte("flags:"))
		if !found {
			continue
		}
		flags, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 8, 64)
		return err != nil || flags&accessMode != readOnly && flags&appendFlag == 0
	}
	return true
}
