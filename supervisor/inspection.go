package supervisor

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/recovery"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// Inspection is all that is known of a worker.
type Inspection struct {
	worker.Info
	// Since is when it reached its status; zero if that is not known.
	Since time.Time
	// Events are the last ones about the worker or its unit, the newest first.
	Events []records.Entry
	// Settings are the unit in force, nil if the unit is not wanted any more, or no master runs.
	Settings *unit.Spec
	// Spent is the number of restarts of the budget that are spent.
	Spent int
	// Retired is set if the worker is not wanted any more.
	Retired bool
	// Changed is what differs from the start of an outdated worker.
	Changed []string
	// Look is what can be seen of the processes, and Hidden why that is not all. They are zero unless asked for.
	launcher.Look
	Hidden error
}

// CommandLine returns the program of the worker with its arguments, as for a start now; nil if it is not known.
func (i Inspection) CommandLine() []string {
	if i.Settings == nil || !i.Settings.Starts() {
		return nil
	}
	port := i.Port
	if i.Instance != nil {
		port = i.Instance.Port
	}
	args, _, err := i.Settings.Launch(i.ID, port)
	if err != nil {
		args = i.Settings.Args // the port is not known yet
	}
	return append([]string{i.Settings.Path}, args...)
}

// shownEvents bounds the events of an inspection.
const shownEvents = 10

// Inspect returns all that is known of the workers with the given ids and of those of the given units, of all without a
// name. It looks at their processes only if processes is set, since that takes a pass over all processes.
func Inspect(ctx context.Context, s *Supervisor, processes bool, names ...string) ([]Inspection, error) {
	workers, err := s.Select(len(names) == 0, names...)
	if err != nil {
		return nil, err
	}
	entries, err := s.opts.Store.Events(0, math.MaxInt)
	if err != nil {
		s.log.Debug("history not read", "error", err) // the workers are known without it
	}
	specs := map[string]*unit.Spec{}
	for u := range unit.All(s.set.specs()) {
		specs[u.Name] = u
	}
	retired := map[string]bool{}
	for _, w := range s.set.list() {
		retired[w.ID()] = s.set.hasRetired(w)
	}
	list := make([]Inspection, 0, len(workers))
	for _, info := range workers {
		in := inspectionOf(info, entries)
		in.Retired = retired[info.ID]
		if u, wanted := specs[info.Unit]; wanted {
			in.Settings = u
			in.Spent = lifecycle.SpentOf(info.History, u.Restart.Budget, s.env.BootTime())
			in.Changed = recovery.Changed(s.env.Secrets, u, info.Worker)
		}
		if i := info.Instance; processes && i != nil && i.PID != 0 {
			in.Look, in.Hidden = s.env.Launcher.Look(ctx, launcher.Subject{Worker: info.ID, Instance: *i})
		}
		list = append(list, in)
	}
	return list, nil
}

// InspectRecords is [Inspect] while no master runs: of the snapshot and the history of the state in stateDir.
func InspectRecords(
	snap records.Snapshot, entries []records.Entry, stateDir string, names ...string,
) ([]Inspection, error) {
	workers := make([]worker.Info, 0, len(snap.Workers))
	for _, w := range snap.Workers {
		workers = append(workers, worker.Recorded(w, logs.Path(logs.DefaultDir(stateDir), w.ID)))
	}
	workers, err := SelectRecorded(snap, workers, len(names) == 0, names...)
	if err != nil {
		return nil, err
	}
	list := make([]Inspection, 0, len(workers))
	for _, info := range workers {
		list = append(list, inspectionOf(info, entries))
	}
	return list, nil
}

// inspectionOf returns the inspection of a worker with this history, oldest event first.
func inspectionOf(info worker.Info, events []records.Entry) Inspection {
	in := Inspection{Info: info}
	for _, e := range slices.Backward(events) {
		ours := e.Worker == info.ID
		if ours && in.Since.IsZero() && e.Type == string(info.Status) {
			in.Since = e.Time
		}
		if (ours || e.Worker == "" && e.Unit == info.Unit) && len(in.Events) < shownEvents {
			in.Events = append(in.Events, e)
		}
	}
	if in.Since.IsZero() {
		in.Since = fallbackSince(info)
	}
	return in
}

// fallbackSince returns when a worker reached its status if the history does not go back so far.
func fallbackSince(info worker.Info) time.Time {
	switch info.Status {
	case records.StatusStarting, records.StatusRunning:
		if info.Instance != nil {
			return info.Instance.Started
		}
		if info.Found != nil {
			return info.Found.Started
		}
	case records.StatusBackoff, records.StatusFailed, records.StatusStopped, records.StatusCompleted,
		records.StatusScheduled, records.StatusAbsent:
		if info.LastExit != nil {
			return info.LastExit.At
		}
	case records.StatusUnhealthy, records.StatusStopping, records.StatusWaiting:
	}
	return time.Time{}
}
