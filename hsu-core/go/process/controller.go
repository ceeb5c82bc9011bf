// Package process keeps one process running: it starts the process, logs its output line by line, restarts it
// whenever it ends, and stops it together with its descendants in the process group.
//
// Only [Controller].Stop ends the processes. After a crash of the program that started them they run on, unwatched,
// and their next write to the broken output pipe ends most of them.
package process

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/core-tools/hsu-core/go/logging"
)

// Controller keeps one process running until it is stopped.
type Controller interface {
	// Stop terminates the process and its group and blocks until they are gone: it sends SIGTERM to the group and,
	// after 30 s, SIGKILL. On Windows, which has neither, Stop kills the process at once and its descendants live
	// on. Every further call, also from other goroutines, waits until the same stop has ended.
	Stop()
}

// ControllerLogConfig configures the log of a Controller. Lines of the process go to Debugf, messages about the
// process to Infof, Warnf and Errorf. The functions are called from one goroutine at a time for the lines and from
// one for the messages.
type ControllerLogConfig struct {
	// Module precedes each message, followed by ": " (if it is empty, neither is written).
	Module string
	Funcs  logging.LogFuncs
}

const defaultRetryPeriod = 10 * time.Second

// limits are the Controller's timeouts, apart from the retry period; tests shorten them.
type limits struct {
	grace time.Duration // from SIGTERM to SIGKILL
	kill  time.Duration // for the processes of a killed group to vanish; remaining ones are reported
	drain time.Duration // for the output to end after its writers: a process outside the group may hold it open
}

var defaultLimits = limits{grace: 30 * time.Second, kill: 5 * time.Second, drain: time.Second}

// NewController starts path with args (without the program's name) and keeps it running.
//
// The process gets this program's environment, no input, the directory of path as its working directory, and a
// process group of its own, so that a Ctrl-C in the terminal does not reach it. Its standard output and error go to
// logConfig line by line; a line of more than 16 MiB is split. Whenever the process ends, with any exit code, the
// remaining processes of its group are killed, and it is restarted after retryPeriod (10 s if that is 0 or less). A
// failed restart is retried in the same way.
//
// NewController returns an error if the first start failed, so that nothing runs: path is missing, not a program,
// or not executable. NewController does not change the file's mode to make it executable.
func NewController(
	path string, args []string, retryPeriod time.Duration, logConfig ControllerLogConfig,
) (Controller, error) {
	c, err := newController(path, args, retryPeriod, logConfig, defaultLimits)
	if err != nil {
		return nil, err // not c: a nil *controller in a Controller is not nil
	}
	return c, nil
}

type controller struct {
	path        string // absolute: the process has another working directory
	args        []string
	retryPeriod time.Duration
	limits      limits
	log         logging.Logger

	stop func() // closes stopping, once
	// stopping is closed when Stop is called. done is closed when the process is gone and the goroutines have
	// ended.
	stopping, done chan struct{}
}

func newController(
	path string, args []string, retryPeriod time.Duration, logConfig ControllerLogConfig, l limits,
) (*controller, error) {
	if path == "" {
		return nil, fmt.Errorf("start process: no path given")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("start process: %w", err)
	}
	if retryPeriod <= 0 {
		retryPeriod = defaultRetryPeriod
	}
	prefix := logConfig.Module
	if prefix != "" {
		prefix += ": "
	}
	stopping := make(chan struct{})
	c := &controller{
		path:        path,
		args:        slices.Clone(args),
		retryPeriod: retryPeriod,
		limits:      l,
		log:         logging.NewLogger(prefix, logConfig.Funcs),
		stop:        sync.OnceFunc(func() { close(stopping) }),
		stopping:    stopping,
		done:        make(chan struct{}),
	}
	first, err := c.start()
	if err != nil {
		return nil, err
	}
	go c.keepRunning(first)
	return c, nil
}

func (c *controller) Stop() {
	c.stop()
	<-c.done
}

// keepRunning follows run, and all its successors, until Stop.
func (c *controller) keepRunning(run *run) {
	defer close(c.done)
	for {
		if run != nil {
			c.follow(run)
		}
		if !c.pause() {
			return
		}
		var err error
		if run, err = c.start(); err != nil {
			c.log.Errorf("%v, next try in %v", err, c.retryPeriod)
		}
	}
}

// pause waits for the retry period and reports whether to continue. The next step depends on its result alone, so
// no restart happens without the wait.
func (c *controller) pause() bool {
	timer := time.NewTimer(c.retryPeriod)
	defer timer.Stop()
	select {
	case <-c.stopping:
		return false
	case <-timer.C:
	}
	select {
	case <-c.stopping: // both cases were ready
		return false
	default:
		return true
	}
}

// follow returns when the process, its group and its output have ended, by themselves or because of Stop.
func (c *controller) follow(run *run) {
	select {
	case <-run.exited:
		c.log.Warnf("process %d ended by itself: %s, restart in %v", run.pid, run.state(), c.retryPeriod)
		// A remaining descendant would hold the port, and no later Stop would know about it.
		c.killRest(run)
	case <-c.stopping:
		c.log.Infof("stopping process %d", run.pid)
		c.end(run)
		c.log.Infof("process %d stopped: %s", run.pid, run.state())
	}
	run.closeOutput(c.limits.drain)
}

// end terminates the group, and kills it after the grace period.
func (c *controller) end(run *run) {
	if err := terminateGroup(run.process); err != nil {
		c.log.Warnf("terminate the group of process %d: %v", run.pid, err)
	}
	// The whole grace period is for the group, not for its leader alone: a shell exits at once on SIGTERM, while
	// the server that it runs may need time.
	if !run.gone(c.limits.grace) {
		c.log.Warnf("process %d did not end within %v, killing its group", run.pid, c.limits.grace)
		c.killRest(run)
	}
}

// killRest kills the remaining processes of the group, and waits for the process itself without a limit.
func (c *controller) killRest(run *run) {
	select {
	case <-run.exited:
		if !groupAlive(run.pid) {
			return
		}
	default:
	}
	if err := killGroup(run.process); err != nil {
		c.log.Warnf("kill the group of process %d: %v", run.pid, err)
	}
	<-run.exited
	if !run.gone(c.limits.kill) {
		c.log.Errorf("process %d is gone, but not all of its group; see: pgrep -a -g %d", run.pid, run.pid)
	}
}

// run is one process.
type run struct {
	process *os.Process
	pid     int
	output  *os.File

	exited chan struct{} // closed after the process has been reaped
	ended  *os.ProcessState
	err    error

	drained chan struct{} // closed at the end of the output
}

func (c *controller) start() (*run, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start process %s: %w", c.path, err)
	}
	cmd := exec.Command(c.path, c.args...)
	cmd.Dir = filepath.Dir(c.path)
	cmd.Stdout, cmd.Stderr = write, write
	ownGroup(cmd)
	err = cmd.Start()
	_ = write.Close()
	if err != nil {
		_ = read.Close()
		return nil, fmt.Errorf("start process: %w", err) // the error names the path
	}

	r := &run{
		process: cmd.Process, pid: cmd.Process.Pid, output: read,
		exited: make(chan struct{}), drained: make(chan struct{}),
	}
	c.log.Infof("started process %d: %s", r.pid, c.path)
	go func() {
		defer close(r.exited)
		// Not cmd.Wait: it waits for the end of the output, that is for the last process that holds the pipe.
		r.ended, r.err = r.process.Wait()
	}()
	go func() {
		defer close(r.drained)
		logLines(read, maxLine, c.log.Debugf)
	}()
	return r, nil
}

// state describes how the process ended. It may only be called after exited is closed.
func (r *run) state() string {
	if r.err != nil {
		return "exit code unknown: " + r.err.Error()
	}
	return r.ended.String()
}

// gone waits, for at most the given time, until the process has been reaped and its group is empty, and reports
// whether that is the case.
func (r *run) gone(within time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	select {
	case <-r.exited:
	case <-ctx.Done():
		return false
	}
	// The end of a process that is not a child cannot be awaited, so poll. Few groups outlive their leader.
	const every = 20 * time.Millisecond
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for groupAlive(r.pid) {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// closeOutput ends the reading of the output after everything that the ended processes had written has been logged.
func (r *run) closeOutput(within time.Duration) {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-r.drained:
	case <-timer.C:
	}
	_ = r.output.Close() // ends a read in progress
	<-r.drained
}
