package process

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is an open handle on one process, which its number may outlive. Whether
// or not it is a child of ours makes no difference to the caller. It is safe for
// concurrent use.
type Process struct {
	id   Identity
	file *os.File // the nonblocking pidfd; it is in the netpoller's hands
	conn syscall.RawConn
	done chan struct{} // closed when all threads have ended
	over chan struct{} // closed when the watching goroutine has returned
	exit Exit          // written before over is closed
}

// afterwards says what a watch does when the process has died.
type afterwards int

const (
	learn  afterwards = iota // reap it if it is ours, and find out how it ended
	ignore                   // nothing: another handle does
)

// watch takes fd over and waits for the process's death in a goroutine, which the
// netpoller wakes: no thread is parked, however many are watched.
func watch(fd int, id Identity, then afterwards) (*Process, error) {
	file := os.NewFile(uintptr(fd), "pidfd")
	fail := func(err error) (*Process, error) {
		_ = file.Close()
		return nil, fmt.Errorf("watch the pidfd: %w", err)
	}
	// This fails where the netpoller did not take the descriptor, without which a
	// read would return at once.
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
	go p.wait(then)
	if ended {
		// What is dead already is not to be taken for alive by who asks at once.
		select {
		case <-p.done:
		case <-p.over:
		}
	}
	return p, nil
}

func (p *Process) wait(then afterwards) {
	defer close(p.over)
	// A wake-up is a hint only: a first thread's end, or an exec by another thread,
	// wakes too before Linux 6.15. What poll says counts.
	err := p.conn.Read(func(fd uintptr) bool { return pidfdEvents(int(fd))&unix.POLLIN != 0 })
	if err != nil {
		return // Close was called
	}
	close(p.done)
	if then == learn {
		p.exit = p.learnExit()
	}
}

// control calls f with the pidfd, which stays open meanwhile. After Close it gives
// os.ErrClosed.
func (p *Process) control(f func(fd int) error) error {
	var result error
	if err := p.conn.Control(func(fd uintptr) { result = f(int(fd)) }); err != nil {
		return os.ErrClosed
	}
	return result
}

// Identity returns the evidence by which the process can be opened again.
func (p *Process) Identity() Identity { return p.id }

// PID returns the process's number. Do not signal it: use Signal.
func (p *Process) PID() int { return p.id.PID }

// Done is closed as soon as the process has died, zombie or not. It is never
// closed after Close.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit returns how the process ended. Call it after Done is closed; before, it
// returns ExitUnknown. Where the process was not our child it may take some
// milliseconds, for its parent to reap it.
func (p *Process) Exit() Exit {
	select {
	case <-p.done:
		<-p.over
		return p.exit
	default:
		return Exit{}
	}
}

// Close forgets the process, which is left as it is: running, or, as an own child
// that has not died yet, to be reaped by whoever opens it again. A second Close
// does nothing.
func (p *Process) Close() error {
	_ = p.file.Close() // the only error is that of a second close
	<-p.over
	return nil
}

// alive says that the process is proven not to have died. A closed handle proves
// nothing.
func (p *Process) alive() bool {
	return p.control(func(fd int) error {
		if pidfdEvents(fd)&unix.POLLIN != 0 {
			return ErrGone
		}
		return nil
	}) == nil
}

// same says that the process's number is still its own, since before it was opened.
func (p *Process) same() bool {
	return p.control(func(fd int) error {
		if !unreaped(fd) {
			return ErrGone
		}
		return nil
	}) == nil
}

// Stopped reports whether all threads of the process are stopped, by SIGSTOP or a
// debugger: it is silent for a reason, and alive.
func (p *Process) Stopped() bool {
	stat, err := readLife(p.id.PID)
	return err == nil && stat.stopped() && p.alive()
}

// reaping is held while a child of ours is reaped, and while something relies on
// a child's number staying its own.
var reaping sync.Mutex
