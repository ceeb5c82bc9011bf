// Package process keeps one process running: it starts it, turns its output into log lines, starts it again
// whenever it ends, and stops it with all that it started.
//
// The processes live and die with the program that started them as far as it ends by [Controller].Stop: after
// a crash of the program they run on, unwatched, and their next write to the lost output pipe ends most of them.
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
	// Stop ends the process and its group and blocks until they are gone: SIGTERM to the group, after 30 s
	// SIGKILL. On Windows, which has neither, the process is killed at once and what it started lives on.
	// Every further call, also from other goroutines, waits for the same end.
	Stop()
}

// ControllerLogConfig says where a Controller logs. Lines of the process go to Debugf, what happens to it to
// Infof, Warnf and Errorf. The functions are called from one goroutine at a time for the lines and from one
// for the rest.
type ControllerLogConfig struct {
	// Module stands before each message, followed by ": " (nothing where it is empty).
	Module string
	Funcs  logging.LogFuncs
}

const defaultRetryPeriod = 10 * time.Second

// limits are the Controller's times, apart from the retry period; tests shorten them.
type limits struct {
	grace time.Duration // from SIGTERM to SIGKILL
	kill  time.Duration // for the rest of a killed group to vanish; what is left then is reported
	drain time.Duration // for the output to end once its writers are gone: one outside the group may hold it open
}

var defaultLimits = limits{grace: 30 * time.Second, kill: 5 * time.Second, drain: time.Second}

// NewController starts path with args (the program's name not among them) and keeps it running.
//
// The process gets this program's environment, no input, the folder of path as its working directory and a
// process group of its own, so that a Ctrl-C in the terminal does not reach it. Its standard output and error
// go to logConfig line by line; a line of more than 16 MiB comes in pieces. Whenever it ends, with whatever
// code, the rest of its group is killed and it is started again after retryPeriod (10 s for 0 and less). A
// later start that fails is tried again just so.
//
// An error means that the first start failed and nothing runs: path is missing, no program, or not executable.
// NewController does not change the file's mode to help that.
func NewController(path string, args []string, retryPeriod time.Duration, logConfig ControllerLogConfig) (Controller, error) {
	c, err := newController(path, args, retryPeriod, logConfig, defaultLimits)
	if err != nil {
		return nil, err // not c: a nil *controller is no nil Controller
	}
	return c, nil
}

type controller struct {
	path        string // absolute: the process's working directory is not ours
	args        []string
	retryPeriod time.Duration
	limits      limits
	log         logging.Logger

	stop func() // closes stopping, once
	// stopping is closed when Stop is called, done when the process is gone and the goroutines have ended.
	stopping, done chan struct{}
}

func newController(path string, args []string, retryPeriod time.Duration, logConfig ControllerLogConfig, l limits) (*controller, error) {
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

// keepRunning follows run, and all that come after it, until Stop.
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

// pause waits out the retry period and tells whether to go on. What to do next depends on nothing else, so
// no way leads to a restart without it.
func (c *controller) pause() bool {
	timer := time.NewTimer(c.retryPeriod)
	defer timer.Stop()
	select {
	case <-c.stopping:
		return false
	case <-timer.C:
	}
	select {
	case <-c.stopping: // both were due
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
		// What it left behind would hold its port, and no later Stop would know of it.
		c.killRest(run)
	case <-c.stopping:
		c.log.Infof("stopping process %d", run.pid)
		c.end(run)
		c.log.Infof("process %d stopped: %s", run.pid, run.state())
	}
	run.closeOutput(c.limits.drain)
}

// end asks the group to end and makes it.
func (c *controller) end(run *run) {
	if err := terminateGroup(run.process); err != nil {
		c.log.Warnf("terminate the group of process %d: %v", run.pid, err)
	}
	// The whole grace period is for the group, not for its leader alone: a shell that is told to end leaves at
	// once, the server that it runs may need its time.
	if !run.gone(c.limits.grace) {
		c.log.Warnf("process %d did not end within %v, killing its group", run.pid, c.limits.grace)
		c.killRest(run)
	}
}

// killRest kills what is left of the group, and waits for the process itself as long as it takes.
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

	exited chan struct{} // closed when the process has been reaped, then
	ended  *os.ProcessState
	err    error

	drained chan struct{} // closed when no more output comes
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
		return nil, fmt.Errorf("start process: %w", err) // names the path
	}

	r := &run{
		process: cmd.Process, pid: cmd.Process.Pid, output: read,
		exited: make(chan struct{}), drained: make(chan struct{}),
	}
	c.log.Infof("started process %d: %s", r.pid, c.path)
	go func() {
		defer close(r.exited)
		// Not cmd.Wait, which would end with the output, that is with the last process that holds the pipe.
		r.ended, r.err = r.process.Wait()
	}()
	go func() {
		defer close(r.drained)
		logLines(read, maxLine, c.log.Debugf)
	}()
	return r, nil
}

// state describes how the process ended. Only after exited.
func (r *run) state() string {
	if r.err != nil {
		return "exit code unknown: " + r.err.Error()
	}
	return r.ended.String()
}

// gone waits until the process has been reaped and its group is empty, at most for the time given, and tells
// whether that is so.
func (r *run) gone(within time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	select {
	case <-r.exited:
	case <-ctx.Done():
		return false
	}
	// Nothing tells of the end of a process that is not our child. Few groups outlive their leader.
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

// closeOutput ends the reading of the output, once all that the ended processes had written has been logged.
func (r *run) closeOutput(within time.Duration) {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-r.drained:
	case <-timer.C:
	}
	_ = r.output.Close() // ends a read under way
	<-r.drained
}
