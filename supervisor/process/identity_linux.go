package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/procfs"
)

var bootID atomic.Pointer[string]

// BootID returns the kernel's identifier of this boot, a UUID (random(4)). It returns an error if the identifier
// cannot be read, for instance because systemd's ProcSubset=pid hides it.
func BootID() (string, error) {
	if id := bootID.Load(); id != nil {
		return *id, nil
	}
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	id := string(bytes.TrimSpace(text))
	if id == "" {
		return "", errors.New("read the boot id: it is empty")
	}
	bootID.Store(&id)
	return id, nil
}

var namespace atomic.Uint64

// PIDNamespace returns the inode of this process's PID namespace, or 0 if the kernel does not report it. A process
// never changes its own PID namespace.
func PIDNamespace() uint64 {
	if inode := namespace.Load(); inode != 0 {
		return inode
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return 0
	}
	namespace.Store(st.Ino)
	return st.Ino
}

// identify collects the evidence about the process behind an open pidfd.
func identify(fd, pid int) (identity.Process, error) {
	id := identity.Process{PID: pid, PIDNamespace: PIDNamespace(), Proof: identity.ProofStartTimeToken}
	// Without a boot ID Open cannot prove the identity later and reports that, but the process can still be watched.
	id.BootID, _ = BootID()
	inode, ok, err := pidfdInode(fd)
	if err != nil {
		return id, err
	}
	if ok {
		id.Inode, id.Proof = inode, identity.ProofPidfdInode
	}
	stat, err := procfs.ReadStat(pid)
	switch {
	case !unreaped(fd):
		return id, ErrGone
	case err != nil:
		return id, fmt.Errorf("%w: read its start time: %w", ErrUnverifiable, err)
	}
	id.StartTicks = stat.StartTicks
	return id, nil
}

// Open opens the process that id names and proves that it is that process. It opens the pidfd first and checks the
// evidence afterwards, so that no other process can take its place. The proof is the pidfd's inode for
// identity.ProofPidfdInode, and otherwise the start time together with the token in the environment.
//
// A proven zombie can be opened: its Done is closed and its Exit may be known. Open returns ErrGone if the
// instance is certainly dead. It returns ErrUnverifiable, with the reason, if it cannot decide.
func Open(id identity.Process, token string) (*Process, error) {
	p, err := open(id, token)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", id.PID, err)
	}
	return p, nil
}

func open(id identity.Process, token string) (*Process, error) {
	if err := checkSupport(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnverifiable, err)
	}
	boot, err := BootID()
	switch here := PIDNamespace(); {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrUnverifiable, err)
	case id.BootID == "":
		return nil, fmt.Errorf("%w: no boot id is recorded", ErrUnverifiable)
	case id.BootID != boot:
		return nil, fmt.Errorf("%w: the machine was booted since", ErrGone)
	case id.PIDNamespace == 0 || here == 0:
		return nil, fmt.Errorf("%w: no pid namespace is known", ErrUnverifiable)
	case id.PIDNamespace != here:
		return nil, fmt.Errorf("%w: %w: that was %d, this is %d", ErrUnverifiable, ErrElsewhere, id.PIDNamespace, here)
	}
	fd, err := openPidfd(id.PID)
	if err != nil {
		return nil, err
	}
	if err := prove(fd, id, token); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return watch(fd, id, learn)
}

// prove checks that the process behind fd is the one that id names.
func prove(fd int, id identity.Process, token string) error {
	switch id.Proof {
	case identity.ProofPidfdInode:
		inode, ok, err := pidfdInode(fd)
		switch {
		case err != nil:
			return fmt.Errorf("%w: %w", ErrUnverifiable, err)
		case !ok || id.Inode == 0:
			return fmt.Errorf("%w: no pidfd inode to compare", ErrUnverifiable)
		case inode != id.Inode:
			return fmt.Errorf("%w: another process has its pid", ErrGone)
		}
		return nil
	case identity.ProofStartTimeToken, identity.ProofNone: // a record without a proof must satisfy the weaker one
		return proveByToken(fd, id, token)
	}
	return fmt.Errorf("%w: unknown kind of proof %q", ErrUnverifiable, id.Proof)
}

func proveByToken(fd int, id identity.Process, token string) error {
	stat, err := procfs.ReadStat(id.PID)
	switch {
	case !unreaped(fd):
		return ErrGone
	case err != nil:
		return fmt.Errorf("%w: read its start time: %w", ErrUnverifiable, err)
	case id.StartTicks == 0:
		return fmt.Errorf("%w: no start time is recorded", ErrUnverifiable)
	case stat.StartTicks != id.StartTicks:
		return fmt.Errorf("%w: another process has its pid", ErrGone)
	case pidfdEvents(fd)&unix.POLLIN == 0:
		return verifyToken(fd, id.PID, token)
	case stat.PPID == os.Getpid():
		// A zombie has no environment. But only this process can reap its child and so free the PID, and after that it
		// no longer opens the child.
		return nil
	}
	return fmt.Errorf("%w: it is a zombie", ErrGone)
}

// verifyToken checks that the environment of the process behind fd names token.
func verifyToken(fd, pid int, token string) error {
	if token == "" {
		return fmt.Errorf("%w: no token is recorded", ErrUnverifiable)
	}
	buf := procfs.GetBuffer()
	defer procfs.PutBuffer(buf)
	environ, state := procfs.ReadEnviron(pid, buf)
	if !unreaped(fd) {
		return ErrGone
	}
	switch state {
	case procfs.EnvironRead:
		switch found, ok := procfs.LookupEnv(environ, EnvWorkerToken); {
		case !ok:
			return fmt.Errorf("%w: its environment names no token", ErrUnverifiable)
		case found != token:
			return fmt.Errorf("%w: another instance has its pid", ErrGone)
		}
		return nil
	case procfs.EnvironCleared:
		return fmt.Errorf("%w: its environment is empty", ErrUnverifiable)
	case procfs.EnvironDenied:
		return fmt.Errorf("%w: no permission to read its environment", ErrUnverifiable)
	case procfs.EnvironInExec:
		return fmt.Errorf("%w: it is just executing a program", ErrUnverifiable)
	case procfs.EnvironNone:
		return fmt.Errorf("%w: it has no environment any more", ErrUnverifiable)
	}
	return ErrUnverifiable
}

// OpenPID opens the process that has the PID now, for a PID found by Scan. Call Verify to check that it is still
// the same process. OpenPID returns ErrGone if no process has the PID.
func OpenPID(pid int) (*Process, error) {
	p, err := openPID(pid, learn)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return p, nil
}

func openPID(pid int, then afterwards) (*Process, error) {
	if err := checkSupport(); err != nil {
		return nil, err
	}
	fd, err := openPidfd(pid)
	if err != nil {
		return nil, err
	}
	id, err := identify(fd, pid)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return watch(fd, id, then)
}

// Identify returns the identity of the process that has the PID now, or ErrGone if there is none.
func Identify(pid int) (identity.Process, error) {
	id, err := identifyPID(pid)
	if err != nil {
		return identity.Process{}, fmt.Errorf("identify process %d: %w", pid, err)
	}
	return id, nil
}

func identifyPID(pid int) (identity.Process, error) {
	if err := checkSupport(); err != nil {
		return identity.Process{}, err
	}
	fd, err := openPidfd(pid)
	if err != nil {
		return identity.Process{}, err
	}
	defer unix.Close(fd)
	return identify(fd, pid)
}

// Verify checks that the environment of the process contains token. It returns ErrGone if the process is certainly
// another instance, or is dead and reaped. It returns ErrUnverifiable if the environment is no evidence: it was
// cleared or overwritten, or cannot be read.
func (p *Process) Verify(token string) error {
	err := p.control(func(fd int) error { return verifyToken(fd, p.id.PID, token) })
	if err != nil {
		return fmt.Errorf("verify process %d: %w", p.id.PID, err)
	}
	return nil
}
