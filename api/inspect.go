package api

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/services"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// Inspect returns all that is known of workers.
func (a *Admin) Inspect(ctx context.Context, req *adminpb.InspectRequest) (*adminpb.InspectResponse, error) {
	list, err := supervisor.Inspect(ctx, a.Supervisor, req.GetProcesses(), req.GetNames()...)
	if _, unknown := errors.AsType[*supervisor.UnknownError](err); unknown {
		return nil, status.Error(codes.NotFound, sendable(err.Error()))
	}
	if err != nil {
		return nil, status.Error(codes.Internal, sendable(err.Error()))
	}
	snap, _ := a.Store.Snapshot() // without it, the workers are known all the same
	resp := inspectResponse(list, snap.Units, req.GetNames())
	workers := make([]*adminpb.Worker, 0, len(list))
	for i, in := range list {
		workers = append(workers, resp.GetInspections()[i].GetWorker())
		workers[i].Calls = callsOf(in.Info, a.Supervisor.Services())
	}
	addUsage(workers, a.Supervisor.Usage(ctx))
	addDisabled(resp.GetUnits(), supervisor.DisabledUnits(a.Supervisor))
	return resp, nil
}

// OfflineInspect is [Admin.Inspect] while no master runs. The error is a [supervisor.UnknownError].
func OfflineInspect(
	snap records.Snapshot, entries []records.Entry, stateDir string, names []string,
) (*adminpb.InspectResponse, error) {
	list, err := supervisor.InspectRecords(snap, entries, stateDir, names...)
	if err != nil {
		return nil, err
	}
	return inspectResponse(list, snap.Units, names), nil
}

func inspectResponse(
	list []supervisor.Inspection, units []records.Unit, names []string,
) *adminpb.InspectResponse {
	resp := &adminpb.InspectResponse{}
	for _, in := range list {
		resp.Inspections = append(resp.Inspections, inspectionMessage(in))
	}
	named := slices.DeleteFunc(slices.Clone(units), func(u records.Unit) bool {
		return !slices.Contains(names, u.Name)
	})
	resp.Units = unitMessages(named)
	return resp
}

func inspectionMessage(in supervisor.Inspection) *adminpb.Inspection {
	m := &adminpb.Inspection{
		Worker: workerMessages([]worker.Info{in.Info})[0], Since: timestamp(in.Since), Retired: in.Retired,
		Cgroup: in.Cgroup, Log: sendable(in.LogPath), SpecHash: in.SpecHash,
		Pids: int32s(in.PIDs), Listens: int32s(in.Listens),
	}
	m.Worker.LastOutput = in.LastOutput()
	if in.Hidden != nil {
		m.Hidden = sendable(in.Hidden.Error())
	}
	for _, e := range slices.Backward(in.Exits) {
		m.Exits = append(m.Exits, &adminpb.Inspection_PastExit{Exit: exitMessage(&e.Exit), Reason: sendable(e.Reason)})
	}
	for _, e := range in.Events {
		m.Events = append(m.Events, eventMessage(e))
	}
	for _, c := range in.Changed {
		m.Outdated = append(m.Outdated, sendable(c))
	}
	for _, word := range in.CommandLine() {
		m.CommandLine = append(m.CommandLine, sendable(word))
	}
	if in.Settings != nil {
		m.Policy = policyMessage(in)
		for _, s := range in.Settings.Settings() {
			m.Settings = append(m.Settings, &adminpb.Inspection_Setting{Key: s.Key, Value: sendable(s.Value)})
		}
	}
	return m
}

func policyMessage(in supervisor.Inspection) *adminpb.Inspection_Policy {
	r := in.Settings.Restart
	p := &adminpb.Inspection_Policy{
		Restart:      string(r.Mode),
		Restarts:     int32(r.Budget.Restarts), //nolint:gosec // the configuration bounds it
		Spent:        int32(in.Spent),          //nolint:gosec // at most Restarts
		Window:       durationpb.New(r.Budget.Window),
		StartTimeout: durationpb.New(in.Settings.Start.Timeout),
		StopGrace:    durationpb.New(in.Settings.Stop.Grace),
	}
	if r.RetryFailed > 0 && r.Mode != unit.RestartNever {
		p.RetryFailed = durationpb.New(r.RetryFailed)
	}
	return p
}

func int32s(numbers []int) []int32 {
	var list []int32
	for _, n := range numbers {
		list = append(list, int32(n)) //nolint:gosec // PIDs and ports fit in 32 bits
	}
	return list
}

// callsOf returns the sum of the figures of a worker over its services, nil if it has had no call.
func callsOf(w worker.Info, known *services.Registry) *adminpb.Figures {
	var sum services.Figures
	for _, o := range w.Services {
		if s := known.Service(o.Name); s != nil {
			sum.Add(s.Figures(w.ID))
		}
	}
	if sum.Calls == 0 && sum.InFlight == 0 {
		return nil
	}
	return figuresMessage(sum)
}
