package master

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/reactions"
)

const (
	// lastCommandsWait bounds how long a master that has stopped waits for the commands of its last events.
	lastCommandsWait = 5 * time.Second
	// handOverCommandsWait bounds it in an upgrade, during which new connections wait.
	handOverCommandsWait = 250 * time.Millisecond
)

// commands returns what runs the commands of events.
func (m *Master) commands() reactions.Processes {
	return reactions.Processes{
		RuntimeDir: m.options.RuntimeDir,
		Launcher: launcher.New(launcher.Options{
			MasterID: m.store.MasterID(), StateDir: func() string { return m.store.StateDirID().String() },
			RuntimeDir: m.options.RuntimeDir, LogDir: filepath.Join(m.options.StateDir, "logs"), Environ: os.Environ(),
			Log: m.log,
		}),
	}
}

// applyRules makes the rules that were last read those of the events from now on.
func (m *Master) applyRules() {
	if m.options.Rules != nil {
		m.events.Apply(m.options.Rules()...)
	}
}

// react runs the commands of events with numbers above after, until finish is called.
func (m *Master) react(ctx context.Context, wg *sync.WaitGroup, after uint64) (finish func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	begin, done := make(chan struct{}), make(chan struct{})
	wg.Go(func() {
		defer close(done)
		select {
		case <-m.ready: // until then, a recovery takes any command for one that a dead master has left
		case <-begin:
			select {
			case <-m.ready:
			default:
				return
			}
		}
		if err := m.commands().Sweep(ctx, m.events.Rules()); err != nil {
			m.log.Error("event commands not stopped", "error", err)
		}
		m.events.Serve(ctx, after)
	})
	return func() {
		defer cancel()
		close(begin)
		m.events.Finish()
		wait := lastCommandsWait
		if m.HandsOver() {
			wait = handOverCommandsWait
		}
		select {
		case <-done:
		case <-time.After(wait):
		}
	}
}
