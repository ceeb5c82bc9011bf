package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/logging"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/handover"
	"github.com/core-tools/hsu-master/master"
)

// serveWithin bounds the time in which a new program must serve. Then the former one is executed again.
var serveWithin = 60 * time.Second

// Names of descriptors.
const (
	formerFile  = "former"  // the file of the former program
	programFile = "program" // that of the new one
)

// handed has the values that a program passes to the next one in the same process, besides descriptors.
type handed struct {
	Upgrade master.Upgrade
	Args    []string         // of the former program, with argument 0
	Env     [][]byte         // its environment, which a new program that is a script can have changed
	Signals []syscall.Signal // that have arrived and were not executed
}

// Takeover is the handover of the former program of this process. Until this program serves, it holds duplicates of the
// descriptors, with which it executes the former program again if this one fails. A program that has replaced none has
// a nil Takeover.
type Takeover struct {
	handed
	files   map[string]*os.File // for the master
	caught  *signals            // since before the rest of the start, so that few can be lost
	stderr  io.Writer
	guard   *time.Timer
	mu      sync.Mutex
	backup  map[string]*os.File // nil once this program serves
	program *os.File            // the former program; nil if this is the former program
}

// TakeOver takes the handover of the former program of this process. It returns nil if there is none, and if it is not
// valid, which it reports on stderr: the master then starts as after a crash.
func TakeOver(stderr io.Writer) *Takeover {
	taken, err := handover.Take()
	if err == nil && taken == nil {
		return nil
	}
	t := &Takeover{
		files: map[string]*os.File{}, backup: map[string]*os.File{}, stderr: stderr, caught: watchSignals(),
	}
	if err == nil {
		err = taken.Facts(&t.handed)
	}
	if err != nil {
		fmt.Fprintf(stderr, "%shsu-master: error: %v\n", logging.Prefix(stderr, logging.PriorityError), err)
		t.caught.stop()
		return nil // as after a crash
	}
	early := taken.Signals() // from now on, signals are received only by caught
	t.Signals = append(t.Signals, union(early, t.caught.pending())...)
	handover.SetName(filepath.Base(os.Args[0])) // after an execution by descriptor it is a number
	t.program = taken.File(formerFile)
	if own := taken.File(programFile); own != nil {
		_ = own.Close() // it is only read
	}
	for _, name := range taken.Names() {
		t.files[name] = taken.File(name)
	}
	if t.program == nil {
		return t
	}
	for name, f := range t.files {
		if t.backup[name], err = handover.Duplicate(f); err != nil {
			t.FallBack(err.Error())
			return t
		}
	}
	t.guard = time.AfterFunc(serveWithin, func() { t.FallBack(fmt.Sprintf("it did not serve within %s", serveWithin)) })
	return t
}

// options returns the part of the master, nil if there is none.
func (t *Takeover) options() *master.Handover {
	if t == nil {
		return nil
	}
	return &master.Handover{Upgrade: t.Upgrade, Files: t.files}
}

// file removes and returns a descriptor, nil if there is none.
func (t *Takeover) file(name string) *os.File {
	if t == nil {
		return nil
	}
	f := t.files[name]
	delete(t.files, name)
	return f
}

// signals returns the signals that this process watches, with those that the former program has left.
func (t *Takeover) signals() *signals {
	if t == nil {
		return watchSignals()
	}
	t.caught.repeat(t.Signals)
	t.Signals = nil
	return t.caught
}

// await gives up the former program when the master serves. It returns then, or when the master stops.
func (t *Takeover) await(m *master.Master) {
	select {
	case <-m.Ready():
		t.settle()
	case <-m.Stopping():
	}
}

// settle gives up the former program.
func (t *Takeover) settle() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.release()
}

// release closes the descriptors for the former program. t.mu is held.
func (t *Takeover) release() {
	if t.program == nil {
		return
	}
	t.guard.Stop()
	for _, f := range t.backup {
		_ = f.Close() // a duplicate, which nothing was written to
	}
	_ = t.program.Close() // it is only read
	t.program = nil
}

// FallBack executes the former program again, unless this one serves or has served.
func (t *Takeover) FallBack(reason string) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.program == nil {
		return
	}
	t.Upgrade.Failure = reason
	err := executeFormer(t.program, t.backup, t.handed, t.caught)
	fmt.Fprintf(t.stderr, "%shsu-master: error: %v\n", logging.Prefix(t.stderr, logging.PriorityError), err)
	t.release()
}

// executeFormer executes the former program by its descriptor.
func executeFormer(program *os.File, files map[string]*os.File, h handed, caught *signals) error {
	p := handover.Program{Args: h.Args, Env: os.Environ()}
	if len(h.Env) > 0 {
		p.Env = nil
		for _, v := range h.Env {
			p.Env = append(p.Env, string(v))
		}
	}
	return execute(p, func() (string, error) { return handover.PathOf(program) }, files, h, caught)
}

// execute executes a program with the descriptors that are handed over, at the path that it has right before. It
// returns only if that fails.
func execute(
	p handover.Program, path func() (string, error), files map[string]*os.File, h handed, caught *signals,
) error {
	return crashpoint.Do(crashpoint.UpgradeExec, func() (err error) {
		if p.Path, err = path(); err != nil {
			return err
		}
		ignoreOnExec()
		h.Signals = append(h.Signals, caught.pending()...)
		var late []syscall.Signal
		p.Late = func() []syscall.Signal {
			late = caught.handOver()
			return late
		}
		err = handover.Execute(p, files, h)
		caught.notify()
		caught.repeat(append(h.Signals, late...))
		return err
	})
}

// replaceProgram executes the new program, or else this one again. It returns only if both fail.
func replaceProgram(m *master.Master, kept *handleStore, c *programChecker, signals *signals, out *logging.Writer,
	log *slog.Logger,
) error {
	next, err := m.HandOver()
	if err != nil {
		log.Error("state not closed in order", "error", err)
	}
	kept.handOver(next.Files)
	out.Close()
	h := handed{Upgrade: next.Upgrade, Args: os.Args}
	for _, v := range os.Environ() {
		h.Env = append(h.Env, []byte(v)) // JSON would change text that is not UTF-8
	}
	err = c.execute(next.Files, h, signals)
	h.Upgrade.Failure = err.Error()
	return errors.Join(err, executeFormer(c.own, next.Files, h, signals))
}

type takeoverKey struct{}

// WithTakeover returns a context by which [Serve] finds the handover, which may be nil.
func WithTakeover(ctx context.Context, t *Takeover) context.Context {
	return context.WithValue(ctx, takeoverKey{}, t)
}

// TakesOver reports whether this program has replaced another one in its process.
func TakesOver(ctx context.Context) bool { return takeoverOf(ctx) != nil }

func takeoverOf(ctx context.Context) *Takeover {
	t, _ := ctx.Value(takeoverKey{}).(*Takeover)
	return t
}
