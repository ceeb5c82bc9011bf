package master

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor"
)

const (
	// eventRetry is the interval of attempts to record an event while the state cannot be written.
	eventRetry = 250 * time.Millisecond
	// lastEventWait bounds the recording of the last event of a master that stops.
	lastEventWait = 2 * time.Second
)

// recordStart records that this master has started, and whether the one before has crashed.
func (m *Master) recordStart(ctx context.Context) {
	started := records.Event{
		Time: time.Now(), Type: eventtype.MasterStarted, Detail: fmt.Sprintf("pid %d", os.Getpid()),
	}
	if m.options.Version != "" {
		started.Detail += " version " + m.options.Version
	}
	if m.store.AfterCrash() {
		m.record(ctx, records.Event{
			Time: started.Time, Type: eventtype.MasterCrashed,
			Detail: "the last master was killed, or the machine lost power",
		}, started)
		return
	}
	m.record(ctx, started)
}

// recordStop records that this master has stopped, and what has become of its workers.
func (m *Master) recordStop(detached bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), lastEventWait)
	defer cancel()
	e := records.Event{Time: time.Now(), Type: eventtype.MasterStopped, Detail: "workers are stopped"}
	switch {
	case err != nil:
		e.Detail = bounded(err.Error())
	case detached:
		e.Detail = supervisor.ErrDetach.Error()
	}
	m.record(ctx, e)
}

// recordFailure records that a reload was refused, or has stopped.
func (m *Master) recordFailure(ctx context.Context, err error) {
	m.record(ctx, records.Event{
		Time: time.Now(), Type: eventtype.ReloadFailed, Detail: bounded(err.Error()), Operator: records.OperatorOf(ctx),
	})
}

// record makes the events durable. While the state cannot be written, it tries again until ctx is done.
func (m *Master) record(ctx context.Context, events ...records.Event) {
	var muts []records.Mutation
	for _, e := range events {
		muts = append(muts, records.AppendEvent(e))
	}
	for {
		err := crashpoint.Do(crashpoint.MasterEvent, func() error { return m.store.Apply(ctx, muts...) })
		if !errors.Is(err, store.ErrUnavailable) {
			if err != nil {
				m.log.Debug("master event not recorded", "error", err)
			}
			return
		}
		select {
		case <-time.After(eventRetry):
		case <-ctx.Done():
			return
		}
	}
}

// maxDetail bounds the text of an error in the history, in bytes.
const maxDetail = 1024

func bounded(text string) string {
	if len(text) > maxDetail {
		return text[:maxDetail] + "..."
	}
	return text
}
