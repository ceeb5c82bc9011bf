package process

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/procfs"
)

// Process is an open handle on one process. The process's PID may be reused while the handle is open. The caller
// does not need to know whether the process is a child. A Process is safe for concurrent use.
type Process struct {
	id   identity.Process
	file *os.File // the nonblocking pidfd, registered with the netpoller
	conn syscall.RawConn
	done chan struct{} // closed when all threads have ended
	over chan struct{} // closed when the watching goroutine has returned
	exit identity.Exit // written before over is closed
}

// afterwards selects the action of a watch when the process has died.
type afterwards int

const (
	learn  afterwards = iota // reap it if it is a child, and find out how it ended
	ignore                   // nothing: another handle does that
)

// watch takes ownership of fd and waits for the process's death in a goroutine that the netpoller wakes: no thread
// blocks, regardless of the number of watched processes.
func watch(fd int, id identity.Process, then afterwards) (*Process, error) {
	file := os.NewFile(uintptr(fd), "pidfd")
	fail := func(err error) (*Process, error) {
		_ = file.Close()
		return nil, fmt.Errorf("watch the pidfd: %w", err)
	}
	// This fails if the netpoller has not accepted the descriptor; a read would then return at once.
	if err := file.SetDeadline(time.Time{}); err != nil {
		return fail(err)
	}
	conn, err := file.SyscallConn()
	if err != nil {
		return fail(err)
	}
	p := &Process{
		id: id, file: file, conn: conn,
		done: make(chan struct{}), over: make(chan struct{}),
	}
	ended := pidfdEvents(fd)&unix.POLLIN != 0
	if then == learn {
		watched.add(id.PID)
	}
	go p.wait(then)
	if ended {
		// A caller that checks Done at once must not take a dead process for alive.
		select {
		case <-p.done:
		case <-p.over:
		}
	}
	return p, nil
}

func (p *Process) wait(then afterwards) {
	defer close(p.over)
	if then == learn {
		defer watched.remove(p.id.PID)
	}
	// A wake-up is only a hint: before Linux 6.15 the end of the first thread, or an exec by another thread, also
	// wakes. The result of poll decides.
	err := p.conn.Read(func(fd uintptr) bool { return pidfdEvents(int(fd))&unix.POLLIN != 0 })
	if err != nil {
		return // Close was called
	}
	close(p.done)
	if then == learn {
		p.exit = p.learnExit()
	}
}

// control calls f with the pidfd, which stays open during the call. After Close it returns os.ErrClosed.
func (p *Process) control(f func(fd int) error) error {
	var result error
	if err := p.conn.Control(func(fd uintptr) { result = f(int(fd)) }); err != nil {
		return os.ErrClosed
	}
	return result
}

// Identity returns the evidence with which the process can be opened again.
func (p *Process) Identity() identity.Process { return p.id }

// PID returns the PID of the process. Do not send signals to it: use Signal.
func (p *Process) PID() int { return p.id.PID }

// Done returns a channel that is closed as soon as the process has died, whether or not it is still a zombie.
// After Close it is never closed.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit returns how the process ended. Call it after Done is closed; before, its Source is ExitUnknown. If the
// process was not a child of this one, Exit may take some milliseconds, until the parent reaps it.
func (p *Process) Exit() identity.Exit {
	select {
	case <-p.done:
		<-p.over
		return p.exit
	default:
		return identity.Exit{}
	}
}

// Close releases the handle and leaves the process as it is: running, or, if it is a child that has not died yet,
// to be reaped by the next handle on it. A second Close does nothing.
func (p *Process) Close() error {
	_ = p.file.Close() // the only error is that of a second close
	<-p.over
	return nil
}

// alive reports whether the process is proven not to have died. With a closed handle it returns false.
func (p *Process) alive() bool {
	return p.control(func(fd int) error {
		if pidfdEvents(fd)&unix.POLLIN != 0 {
			return ErrGone
		}
		return nil
	}) == nil
}

// same reports whether the PID has been the process's own ever since the pidfd was opened.
func (p *Process) same() bool {
	return p.control(func(fd int) error {
		if !unreaped(fd) {
			return ErrGone
		}
		return nil
	}) == nil
}

// Stopped reports whether all threads of the process are stopped, by SIGSTOP or a debugger. Such a process is
// alive, although it does not respond.
func (p *Process) Stopped() bool {
	stat, err := procfs.ReadLife(p.id.PID)
	return err == nil && stat.Stopped() && p.alive()
}

// reaping is locked while a child of this process is reaped, and while code relies on a child keeping its PID.
var reaping sync.Mutex
