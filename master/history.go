package master

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
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

func (m *Master) journal() journal { return journal{m.store, m.log} }

// journal records what this master does and what operators do with it.
type journal struct {
	store *store.DB
	log   *slog.Logger
}

// started records that a master of the version has started, and whether the one before has crashed.
func (j journal) started(ctx context.Context, version string) {
	started := records.Event{
		Time: time.Now(), Type: eventtype.MasterStarted, Detail: fmt.Sprintf("pid %d", os.Getpid()),
	}
	if version != "" {
		started.Detail += " version " + version
	}
	if j.store.AfterCrash() {
		j.note(ctx, records.Event{
			Time: started.Time, Type: eventtype.MasterCrashed,
			Detail: "the last master was killed, or the machine lost power",
		}, started)
		return
	}
	j.note(ctx, started)
}

// stopped records that this master has stopped, and whether its workers run on.
func (j journal) stopped(detached bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), lastEventWait)
	defer cancel()
	e := records.Event{Time: time.Now(), Type: eventtype.MasterStopped, Detail: "workers are stopped"}
	switch {
	case err != nil:
		e.Detail = bounded(err.Error())
	case detached:
		e.Detail = supervisor.ErrDetach.Error()
	}
	j.note(ctx, e)
}

// reloaded records a reload of a master without a file.
func (j journal) reloaded(ctx context.Context, changes []supervisor.Change) {
	j.note(ctx, records.Event{
		Time: time.Now(), Type: eventtype.Reload, Detail: supervisor.DescribeChanges(changes),
		Operator: records.OperatorOf(ctx),
	})
}

// outage is a time in which the state could not be written.
type outage struct {
	since, until time.Time
	cause        error
}

// outages are those that are not recorded yet.
type outages chan outage

// add adds an outage that is over now. If many are not recorded yet, it drops this one, which the log has.
func (o outages) add(since time.Time, cause error) {
	select {
	case o <- outage{since, time.Now(), cause}:
	default:
	}
}

// follow records the outages of the state and the reloads of certificates until ctx ends.
func (j journal) follow(ctx context.Context, failed outages, reloads <-chan error) {
	for {
		select {
		case o := <-failed:
			j.note(ctx, records.Event{Time: o.since, Type: eventtype.StateFailed, Detail: bounded(o.cause.Error())},
				records.Event{
					Time: o.until, Type: eventtype.StateRepaired,
					Detail: "after " + o.until.Sub(o.since).Round(time.Millisecond).String(),
				})
		case err := <-reloads:
			e := records.Event{Time: time.Now(), Type: eventtype.CertificateReloaded}
			if err != nil {
				e.Type, e.Detail = eventtype.CertificateFailed, bounded(err.Error())
			}
			j.note(ctx, e)
		case <-ctx.Done():
			return
		}
	}
}

// reloadFailed records that a reload was refused, or has stopped.
func (j journal) reloadFailed(ctx context.Context, err error) {
	j.note(ctx, records.Event{
		Time: time.Now(), Type: eventtype.ReloadFailed, Detail: bounded(oneLine(err.Error())),
		Operator: records.OperatorOf(ctx),
	})
}

// ending records that an operator ends the master.
func (j journal) ending(ctx context.Context, detach bool) {
	e := records.Event{
		Time: time.Now(), Type: eventtype.Down, Detail: "the workers are stopped", Operator: records.OperatorOf(ctx),
	}
	if detach {
		e.Type, e.Detail = eventtype.Detach, "the workers are left running"
	}
	ctx, cancel := context.WithTimeout(ctx, recordWithin)
	defer cancel()
	if err := j.record(ctx, crashpoint.MasterEvent, e); err != nil {
		j.log.Warn("shutdown not recorded", "error", err)
	}
	j.log.Info("master stopping by command", "detach", detach)
}

// upgraded records and logs the outcome of an upgrade.
func (j journal) upgraded(u Upgrade) {
	e := records.Event{Time: time.Now(), Type: eventtype.Upgrade, Operator: u.Operator}
	if u.Failure != "" {
		e.Type, e.Detail = eventtype.UpgradeFailed, bounded(u.Binary+": "+u.Failure)
		j.log.Error("upgrade failed", "path", u.Binary, "error", u.Failure)
	} else {
		e.Detail = fmt.Sprintf("from version %s to %s; %d calls cut", u.From, u.To, u.Cut)
		j.log.Info("master upgraded", "former", u.From, "version", u.To, "cut", u.Cut, "duration", u.Took)
	}
	ctx, cancel := context.WithTimeout(context.Background(), upgradeRecordWithin)
	defer cancel()
	if err := j.record(ctx, crashpoint.UpgradeRecord, e); err != nil {
		j.log.Warn("upgrade not recorded", "error", err)
	}
}

// note records events without which the master goes on.
func (j journal) note(ctx context.Context, events ...records.Event) {
	if err := j.record(ctx, crashpoint.MasterEvent, events...); err != nil {
		j.log.Debug("master event not recorded", "error", err)
	}
}

// record makes the events durable. While the state cannot be written, it tries again until ctx is done.
func (j journal) record(ctx context.Context, point crashpoint.Point, events ...records.Event) error {
	var muts []records.Mutation
	for _, e := range events {
		muts = append(muts, records.AppendEvent(e))
	}
	for {
		err := crashpoint.Do(point, func() error { return j.store.Apply(ctx, muts...) })
		if !errors.Is(err, store.ErrUnavailable) {
			return err
		}
		select {
		case <-time.After(eventRetry):
		case <-ctx.Done():
			return err
		}
	}
}

// maxDetail bounds the text of an error in the history, in bytes.
const maxDetail = 1024

func bounded(text string) string {
	if len(text) > maxDetail {
		return strings.ToValidUTF8(text[:maxDetail], "") + "..."
	}
	return text
}

// oneLine returns the lines of a text, such as the faults of a file, as one. Indented lines are left out: they are the
// lines of the file.
func oneLine(text string) string {
	var parts []string
	for line := range strings.SplitSeq(text, "\n") {
		if line != "" && line[0] != ' ' {
			parts = append(parts, line)
		}
	}
	return strings.ReplaceAll(strings.Join(parts, "; "), ":; ", ": ")
}
