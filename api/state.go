package api

import (
	"syscall"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/api/proto"
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
	state := &adminpb.State{
		SchemaVersion:  snap.SchemaVersion,
		MasterId:       snap.Meta.MasterID,
		ProcessedCount: snap.Processed,
		Workers:        workerMessages(workers),
		Services:       services(workers),
	}
	if len(snap.Bad) > 0 {
		state.BadRecords = make(map[string]string, len(snap.Bad))
		for key, err := range snap.Bad {
			state.BadRecords[key] = err.Error()
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
			Reason:      w.Reason,
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

// services lists what the workers offer: until units say more, the business
// service.
func services(workers []supervisor.WorkerInfo) []*adminpb.Service {
	service := &adminpb.Service{Name: proto.MyBusinessService_ServiceDesc.ServiceName}
	for _, w := range workers {
		if w.Instance == nil || w.Instance.PID == 0 {
			continue
		}
		service.Endpoints = append(service.Endpoints, &adminpb.Endpoint{
			Address: supervisor.WorkerAddress(w.Instance.Port), Worker: w.ID, Healthy: w.Ready,
		})
	}
	if len(service.GetEndpoints()) == 0 {
		return nil
	}
	return []*adminpb.Service{service}
}

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
