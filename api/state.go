package api

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/placement"
	"github.com/core-tools/hsu-master/supervisor/registrations"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// Sources of a state.
const (
	SourceLive    = "live"
	SourceOffline = "offline"
)

// OfflineState returns the state recorded in the files of stateDir while no master runs. The status of each
// worker is the last recorded one.
func OfflineState(snap records.Snapshot, stateDir string) *adminpb.State {
	workers := make([]worker.Info, 0, len(snap.Workers))
	for _, w := range snap.Workers {
		workers = append(workers, worker.Recorded(w, logs.Path(logs.DefaultDir(stateDir), w.ID)))
	}
	state := stateOf(snap, workers)
	state.Source = SourceOffline
	return state
}

func stateOf(snap records.Snapshot, workers []worker.Info) *adminpb.State {
	registered := make([]registrations.Endpoint, 0, len(snap.Registered))
	for _, r := range snap.Registered {
		registered = append(registered, registrations.Endpoint{Registration: r})
	}
	state := &adminpb.State{
		SchemaVersion:  snap.SchemaVersion,
		MasterId:       snap.Meta.MasterID,
		ProcessedCount: snap.Processed,
		Workers:        workerMessages(workers),
		Units:          unitMessages(snap.Units),
		Services:       serviceMessages(workers, registered, nil),
		Scope:          placement.Find(snap.Meta.MasterID).Scope(),

		CountMayBeShortSince: timestamp(snap.Meta.CountShortSince),
	}
	if len(snap.Bad) > 0 {
		state.BadRecords = make(map[string]string, len(snap.Bad))
		for key, err := range snap.Bad {
			state.BadRecords[sendable(key)] = sendable(err.Error())
		}
	}
	return state
}

func unitMessages(units []records.Unit) []*adminpb.Unit {
	messages := make([]*adminpb.Unit, 0, len(units))
	for _, u := range units {
		m := &adminpb.Unit{
			Name: u.Name, Kind: string(u.Kind), Replicas: int32(u.Replicas), //nolint:gosec // a record's fit in 32 bits
			Disabled: u.Disabled, Retired: u.Retired, SpecHash: u.SpecHash, ChangedAt: timestamp(u.Changed),
		}
		if u.Scale != nil {
			m.Scale = new(int32(*u.Scale)) //nolint:gosec // likewise
		}
		messages = append(messages, m)
	}
	return messages
}

// addDisabled marks the units of a running master that are disabled, also those that only their configuration disables,
// of which the records say nothing.
func addDisabled(units []*adminpb.Unit, disabled []string) {
	for _, u := range units {
		u.Disabled = u.GetDisabled() || slices.Contains(disabled, u.GetName())
	}
}

func workerMessages(workers []worker.Info) []*adminpb.Worker {
	messages := make([]*adminpb.Worker, 0, len(workers))
	for _, w := range workers {
		m := &adminpb.Worker{
			Id:          w.ID,
			Unit:        w.Unit,
			Desired:     string(w.Desired),
			Status:      string(w.Status),
			Reason:      sendable(w.Reason),
			Incarnation: w.Incarnation,
			Restarts:    w.Restarts,
			Adopted:     w.Adopted,
			Outdated:    w.Outdated,
			LastExit:    exitMessage(w.LastExit),
			WaitingFor:  sendable(w.WaitingFor),
			Probe:       sendable(w.Probe),
			Ready:       w.Ready,
			Checks:      checkMessages(w.Checks),
			RetryAt:     timestamp(w.RetryAt),
			Unmanaged:   w.Unmanaged(),
			StatusText:  sendable(w.StatusText),
			StoppedBy:   operatorMessage(w.StoppedBy),
		}
		for _, limit := range w.Unenforced {
			m.Unenforced = append(m.Unenforced, sendable(limit))
		}
		if f := w.Found; f != nil {
			m.Pid, m.Program = int32(f.PID), sendable(f.Name) //nolint:gosec // fits in 32 bits
			m.StartedAt = timestamp(f.Started)
		}
		if i := w.Instance; i != nil {
			m.Pid, m.Port, m.Token = int32(i.PID), int32(i.Port), i.Token //nolint:gosec // both fit in 32 bits
			m.StartedAt = timestamp(i.Started)
			m.Announcements = announcementMessages(i.Announcements)
		}
		if w.Due != nil {
			m.NextDueAt, m.LastDueAt = timestamp(w.Due.Next), timestamp(w.Due.Last)
		}
		switch w.Status {
		case records.StatusScheduled:
			if w.Reason != "" {
				m.LastOutput = w.LastOutput()
			}
		case records.StatusBackoff, records.StatusFailed, records.StatusUnhealthy:
			m.LastOutput = w.LastOutput()
		case records.StatusStarting, records.StatusRunning, records.StatusStopping, records.StatusStopped,
			records.StatusCompleted, records.StatusWaiting, records.StatusAbsent:
		}
		messages = append(messages, m)
	}
	return messages
}

func announcementMessages(announcements []records.Announcement) []*adminpb.Announcement {
	var messages []*adminpb.Announcement
	for _, a := range announcements {
		m := &adminpb.Announcement{Module: sendable(a.Module), Pid: int32(a.PID)} //nolint:gosec // fits in 32 bits
		for _, api := range a.APIs {
			ids := make([]string, len(api.ServiceIDs))
			for i, id := range api.ServiceIDs {
				ids[i] = sendable(id)
			}
			m.Apis = append(m.Apis, &adminpb.AnnouncedApi{
				ServiceIds: ids, Port: int32(api.Port), Protocol: sendable(api.Protocol), //nolint:gosec // likewise
			})
		}
		messages = append(messages, m)
	}
	return messages
}

func checkMessages(checks []worker.CheckInfo) []*adminpb.Check {
	messages := make([]*adminpb.Check, 0, len(checks))
	for _, c := range checks {
		messages = append(messages, &adminpb.Check{
			Use: c.Use, Probe: sendable(c.Probe), Passed: c.Passed, Answer: sendable(c.Answer),
			AnsweredAt: timestamp(c.At), DueAt: timestamp(c.Due),
		})
	}
	return messages
}

func exitMessage(e *identity.Exit) *adminpb.Exit {
	if e == nil {
		return nil
	}
	m := &adminpb.Exit{Known: e.Source != identity.ExitUnknown, At: timestamp(e.At)}
	switch {
	case !m.GetKnown():
	case e.Signal != 0:
		name := identity.SignalName(e.Signal)
		m.Signal = &name
	default:
		code := int32(e.Code) //nolint:gosec // an exit code has 8 bits, or 32 on Windows
		m.Code = &code
	}
	return m
}

// sendable makes s valid UTF-8, which protobuf requires of strings. A reason may quote a worker's answer, and one
// invalid string would make the whole message unsendable.
func sendable(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
