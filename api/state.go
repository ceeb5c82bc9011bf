package api

import (
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// Sources of a state.
const (
	SourceLive    = "live"
	SourceOffline = "offline"
)

// OfflineState is what the file says while no master runs. Health and liveness
// are as they were last recorded.
func OfflineState(snap store.Snapshot) *adminpb.State {
	workers := make([]supervisor.WorkerInfo, 0, len(snap.Workers))
	for _, w := range snap.Workers {
		workers = append(workers, supervisor.WorkerInfo{Worker: w, Ready: w.Status == store.StatusRunning})
	}
	state := stateOf(snap, workers)
	state.Source = SourceOffline
	return state
}

func stateOf(snap store.Snapshot, workers []supervisor.WorkerInfo) *adminpb.State {
	registered := make([]supervisor.Registered, 0, len(snap.Registered))
	for _, r := range snap.Registered {
		registered = append(registered, supervisor.Registered{Registration: r})
	}
	state := &adminpb.State{
		SchemaVersion:  snap.SchemaVersion,
		MasterId:       snap.Meta.MasterID,
		ProcessedCount: snap.Processed,
		Workers:        workerMessages(workers),
		Services:       serviceMessages(workers, registered, nil),

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

func workerMessages(workers []supervisor.WorkerInfo) []*adminpb.Worker {
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
		}
		if i := w.Instance; i != nil {
			m.Pid, m.Port, m.Token = int32(i.PID), int32(i.Port), i.Token //nolint:gosec // both fit, see pid_max and TCP
			m.StartedAt = timestamp(i.Started)
		}
		switch w.Status {
		case store.StatusBackoff, store.StatusFailed, store.StatusUnhealthy:
			m.LastOutput = w.LastOutput()
		case store.StatusStarting, store.StatusRunning, store.StatusStopping, store.StatusStopped:
		}
		messages = append(messages, m)
	}
	return messages
}

func exitMessage(e *store.Exit) *adminpb.Exit {
	if e == nil {
		return nil
	}
	m := &adminpb.Exit{Known: e.Source != store.ExitUnknown, At: timestamp(e.At)}
	switch {
	case !m.GetKnown():
	case e.Signal != 0:
		name := process.SignalName(syscall.Signal(e.Signal))
		m.Signal = &name
	default:
		code := int32(e.Code) //nolint:gosec // an exit code has 8 bits, on Windows 32
		m.Code = &code
	}
	return m
}

// sendable makes s a string of a message, which has to be UTF-8: a reason may quote
// what a worker has answered, and one such string would keep all else from being sent.
func sendable(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
