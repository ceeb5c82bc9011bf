// Package oneshot runs commands: processes that are awaited until they end, and then killed with all of their family.
package oneshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// OutputKept is how much of a command's output [Run] keeps: its end.
const OutputKept = 4 << 10

// Times of Run.
const (
	// closingTime is how long the pipe of a dead family may stay open.
	closingTime = 50 * time.Millisecond
	// runKillWait limits the killing of a command's family.
	runKillWait = 5 * time.Second
)

// ErrSurvived is returned by [Run] if not all of a command could be killed.
var ErrSurvived = errors.New("processes of a command survive")

// Spec describes a command.
type Spec struct {
	process.Spec

	// Patience is the time between SIGTERM and SIGKILL. Hurry is a channel that is closed to end it.
	Patience time.Duration
	Hurry    <-chan struct{}
}

// Ran is how a command ended.
type Ran struct {
	Exit identity.Exit // valid unless Cut
	Cut  bool          // ctx ended first, and the command was killed
	At   time.Time     // when the command ended, or ctx; the rest of its family may have been killed later
	// Output is the end of its output.
	Output []byte
}

// Run starts a command in a session of its own and waits until it has ended or ctx ends. Then it kills the rest of
// its family, which carries token and holds the Lease of the spec, if there is one. Run returns when all of it is gone:
// the time after the end of ctx is that of [process.Family.Kill], and limited. It locks the lease first, and closes it.
// A spec with a lease must have the Rights of [process.Attributes.Resolve].
//
// If the spec has no Output, stdout and stderr are one pipe to Run, of which it drops all but the end, so that no
// amount of output stops the command or fills a disk.
//
// If ctx ends and the spec has Patience, the process group gets SIGTERM and that time to end before it is killed. The
// error is ErrSurvived if not all of the family could be killed.
func Run(ctx context.Context, spec Spec, token string) (Ran, error) {
	defer func() { _ = spec.Lease.Close() }()
	if spec.Lease != nil {
		if err := spec.Lease.Lock(); err != nil {
			return Ran{}, fmt.Errorf("start %s: %w", spec.Path, err)
		}
	}
	output, write, err := os.Pipe()
	if err != nil {
		return Ran{}, fmt.Errorf("start %s: make a pipe: %w", spec.Path, err)
	}
	// Descendants that write elsewhere still hold the pipe at descriptor 3, so its end means that all are gone, except
	// those that have closed it. With a lease in its place, they are looked for.
	thorough := spec.Output != nil || spec.Lease != nil
	spec.Leash = write
	if spec.Output == nil {
		spec.Output = write
	}
	p, err := process.Start(spec.Spec)
	_ = write.Close()      // the command has its own descriptors
	_ = spec.Lease.Close() // while it is open here, it is held
	if err != nil {
		return Ran{}, errors.Join(err, output.Close())
	}
	id := p.Identity()
	family := process.Family{
		Token: token, Leader: id.PID, Main: p, Session: id.PID, StartTicks: id.StartTicks, UID: spec.Rights.Account.UID,
	}
	if spec.Lease != nil {
		family.LeasePath, family.Lease = spec.Lease.Path(), spec.Lease.ID()
	}
	r := running{process: p, family: family, output: output, closed: make(chan struct{}), thorough: thorough}
	go r.read()
	ran := r.await(ctx)
	if ran.Cut {
		r.terminate(spec.Patience, spec.Hurry)
	}
	err = errors.Join(r.clear(), output.Close())
	<-r.closed // reading ends with the pipe
	ran.Output = r.tail.bytes()
	return ran, errors.Join(err, p.Close())
}

// running is a command that Run waits for.
type running struct {
	process *process.Process
	family  process.Family
	output  *os.File
	closed  chan struct{} // closed when all holders of the pipe are gone
	tail    tail
	// thorough means that descendants are looked for even if nobody holds the pipe. A check, which is run every few
	// seconds, is not worth a scan of all processes.
	thorough bool
}

func (r *running) read() {
	defer close(r.closed)
	_, _ = io.Copy(&r.tail, r.output) // an error is the end of the pipe, at this side if not at the other
}

// await returns when the command has ended, or ctx.
func (r *running) await(ctx context.Context) Ran {
	select {
	case <-r.process.Done():
		return Ran{Exit: r.process.Exit(), At: time.Now()}
	case <-ctx.Done():
		return Ran{Cut: true, At: time.Now()}
	}
}

// terminate asks the process group to end, and waits for the command until its patience is over or hurry is closed.
func (r *running) terminate(patience time.Duration, hurry <-chan struct{}) {
	if patience <= 0 {
		return
	}
	// An error means that it has ended, or that it cannot be signalled: the kill reports that.
	_ = r.process.SignalGroup(syscall.SIGTERM)
	_ = r.process.SignalGroup(process.SignalContinue)
	over := time.NewTimer(patience)
	defer over.Stop()
	select {
	case <-r.process.Done():
	case <-hurry:
	case <-over.C:
	}
}

// clear kills the family unless all of it is gone.
func (r *running) clear() error {
	select {
	case <-r.process.Done():
		if r.closes() && !r.thorough {
			return nil
		}
	default:
	}
	// Not the caller's context, which may have ended.
	ctx, cancel := context.WithTimeout(context.Background(), runKillWait)
	defer cancel()
	left, err := r.family.Kill(ctx)
	// The rest of its group are orphans that have cleared their environment.
	if e := r.process.SignalGroup(syscall.SIGKILL); e != nil && !errors.Is(e, process.ErrGone) {
		err = errors.Join(err, e)
	}
	r.closes()
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%d processes of a command could not be killed, the first is %d", len(left), left[0].PID)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSurvived, err)
	}
	return nil
}

// closes reports whether all holders of the pipe are gone within the closing time.
func (r *running) closes() bool {
	closing := time.NewTimer(closingTime)
	defer closing.Stop()
	select {
	case <-r.closed:
		return true
	case <-closing.C:
		return false
	}
}

// tail keeps the last OutputKept bytes that are written to it.
type tail struct {
	ring    [OutputKept]byte
	written int64
}

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if skip := n - len(t.ring); skip > 0 {
		t.written += int64(skip)
		p = p[skip:]
	}
	for len(p) > 0 {
		copied := copy(t.ring[t.written%OutputKept:], p)
		t.written += int64(copied)
		p = p[copied:]
	}
	return n, nil
}

func (t *tail) bytes() []byte {
	if t.written <= OutputKept {
		return append([]byte(nil), t.ring[:t.written]...)
	}
	at := t.written % OutputKept
	return append(append([]byte(nil), t.ring[at:]...), t.ring[:at]...)
}
