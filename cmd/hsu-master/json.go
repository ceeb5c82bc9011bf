package main

import (
	"time"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/supervisor/history"
)

const jsonFlag = "json"

func jsonOutput() cli.Flag {
	return &cli.BoolFlag{Name: jsonFlag, Usage: "print JSON"}
}

// The JSON output. Scripts depend on it: fields may be added, but never renamed.
type (
	stateJSON struct {
		Source         string            `json:"source"`
		SchemaVersion  uint64            `json:"schema_version"`
		MasterID       string            `json:"master_id"`
		MasterPID      int32             `json:"master_pid"`
		Status         string            `json:"status,omitempty"`
		Address        string            `json:"address,omitempty"`
		Version        string            `json:"version,omitempty"`
		StartedAt      *time.Time        `json:"started_at,omitempty"`
		ProcessedCount int64             `json:"processed_count"`
		CountShort     *time.Time        `json:"count_may_be_short_since,omitempty"`
		Workers        []workerJSON      `json:"workers"`
		Units          []unitJSON        `json:"units"`
		Services       []serviceJSON     `json:"services"`
		Scope          string            `json:"scope,omitempty"`    // of systemd, with the workers
		Registry       string            `json:"registry,omitempty"` // URL of the module registry
		WriteError     string            `json:"write_error,omitempty"`
		EventCommands  *commandsJSON     `json:"event_commands,omitempty"` // those of on_event
		BadRecords     map[string]string `json:"bad_records,omitempty"`
	}
	commandsJSON struct {
		Rules   int32  `json:"rules"` // of the configuration
		Running int32  `json:"running"`
		Queued  int32  `json:"queued"` // events that wait
		Failed  uint64 `json:"failed"`
		Dropped uint64 `json:"dropped"` // events
	}
	workersJSON struct {
		Source  string       `json:"source"`
		Workers []workerJSON `json:"workers"`
		Units   []unitJSON   `json:"units"`
	}
	unitJSON struct {
		Name      string     `json:"name"`
		Kind      string     `json:"kind,omitempty"` // integrated, managed or unmanaged
		Replicas  int32      `json:"replicas"`       // as configured
		Scale     *int32     `json:"scale"`          // null unless an operator has set a number
		Disabled  bool       `json:"disabled"`
		Retired   bool       `json:"retired"`
		SpecHash  string     `json:"spec_hash,omitempty"`
		ChangedAt *time.Time `json:"changed_at,omitempty"`
	}
	workerJSON struct {
		ID          string            `json:"id"`
		Unit        string            `json:"unit"`
		Desired     string            `json:"desired"`
		Status      string            `json:"status"`
		Reason      string            `json:"reason,omitempty"`
		PID         int32             `json:"pid"`
		Port        int32             `json:"port"`
		Token       string            `json:"token"`
		Incarnation uint64            `json:"incarnation"`
		Restarts    uint64            `json:"restarts"`
		Adopted     bool              `json:"adopted"`
		Outdated    bool              `json:"outdated"`
		StartedAt   *time.Time        `json:"started_at,omitempty"`
		LastExit    *exitJSON         `json:"last_exit,omitempty"`
		LastOutput  []string          `json:"last_output,omitempty"`
		RetryAt     *time.Time        `json:"retry_at,omitempty"` // while it is in backoff, or failed and not given up
		Ready       bool              `json:"ready"`
		WaitingFor  string            `json:"waiting_for,omitempty"` // while the worker is starting
		StatusText  string            `json:"status_text,omitempty"` // of STATUS= on its notify socket
		Probe       string            `json:"probe,omitempty"`       // kind and target
		Checks      []healthJSON      `json:"checks,omitempty"`
		NextDueAt   *time.Time        `json:"next_due_at,omitempty"` // if its unit has a schedule
		LastDueAt   *time.Time        `json:"last_due_at,omitempty"` // that was run, skipped or missed
		Unenforced  []string          `json:"unenforced,omitempty"`  // limits, each with the reason
		Unmanaged   bool              `json:"unmanaged,omitempty"`   // another program starts it
		Program     string            `json:"program,omitempty"`     // name of the process, if it is unmanaged
		StoppedBy   *history.Operator `json:"stopped_by,omitempty"`  // while it is desired stopped, or being given up
		Usage       *usageJSON        `json:"usage"`
		Modules     []moduleJSON      `json:"modules,omitempty"` // that its processes have published
	}
	moduleJSON struct {
		Module string    `json:"module"`
		PID    int32     `json:"pid"`
		APIs   []apiJSON `json:"apis"`
	}
	apiJSON struct {
		ServiceIDs []string `json:"service_ids"`
		Port       int32    `json:"port"`
		Protocol   string   `json:"protocol,omitempty"`
	}
	healthJSON struct {
		Use        string     `json:"use"`
		Probe      string     `json:"probe"`
		Passed     bool       `json:"passed"`
		Answer     string     `json:"answer,omitempty"`
		AnsweredAt *time.Time `json:"answered_at,omitempty"`
		DueAt      *time.Time `json:"due_at,omitempty"`
	}
	exitJSON struct {
		Code   *int32     `json:"code"`
		Signal *string    `json:"signal"`
		Known  bool       `json:"known"`
		At     *time.Time `json:"at,omitempty"`
	}
	serviceJSON struct {
		Name      string         `json:"name"`
		Endpoints []endpointJSON `json:"endpoints"`
		// The fields below are set only for a running master.
		Balance     string `json:"balance,omitempty"`
		AffinityKey string `json:"affinity_key,omitempty"`
		MaxInFlight int64  `json:"max_in_flight,omitempty"`
		MaxMessage  int64  `json:"max_message,omitempty"`
		Waiting     int64  `json:"waiting"`
	}
	endpointJSON struct {
		Address    string       `json:"address"`
		Worker     string       `json:"worker"`
		Healthy    bool         `json:"healthy"`
		Source     string       `json:"source"` // worker, reflection or registered
		Ejected    bool         `json:"ejected"`
		EjectedFor float64      `json:"ejected_for,omitempty"` // seconds from now
		Reason     string       `json:"reason,omitempty"`
		TTL        float64      `json:"ttl,omitempty"` // seconds
		ExpiresAt  *time.Time   `json:"expires_at,omitempty"`
		Probe      string       `json:"probe,omitempty"`   // ping, grpc or tcp
		Figures    *figuresJSON `json:"figures,omitempty"` // only for a running master
	}
	figuresJSON struct {
		Calls     uint64            `json:"calls"`
		InFlight  int64             `json:"in_flight"`
		Failures  map[string]uint64 `json:"failures"` // by status
		Retries   uint64            `json:"retries"`
		Ejections uint64            `json:"ejections"`
		Latency   *latencyJSON      `json:"latency,omitempty"` // absent before the first call has ended
	}
	// latencyJSON is in seconds. A quantile is the upper bound of its bucket; it is null for the last bucket,
	// which has none.
	latencyJSON struct {
		Mean float64  `json:"mean"`
		P50  *float64 `json:"p50"`
		P99  *float64 `json:"p99"`
	}
	servicesJSON struct {
		Source   string        `json:"source"`
		Services []serviceJSON `json:"services"`
	}
)

func stateToJSON(s *adminpb.State) stateJSON {
	return stateJSON{
		Source:         s.GetSource(),
		SchemaVersion:  s.GetSchemaVersion(),
		MasterID:       s.GetMasterId(),
		MasterPID:      s.GetMasterPid(),
		Status:         s.GetStatus(),
		Address:        s.GetListen(),
		Version:        s.GetVersion(),
		StartedAt:      render.LocalTime(s.GetMasterStartedAt()),
		ProcessedCount: s.GetProcessedCount(),
		CountShort:     render.LocalTime(s.GetCountMayBeShortSince()),
		Workers:        workersToJSON(s.GetWorkers()),
		Units:          unitsToJSON(s.GetUnits()),
		Services:       servicesToJSON(s.GetServices()),
		Scope:          s.GetScope(),
		Registry:       s.GetRegistry(),
		WriteError:     s.GetWriteError(),
		BadRecords:     s.GetBadRecords(),
		EventCommands:  commandsToJSON(s.GetEventCommands()),
	}
}

func commandsToJSON(e *adminpb.EventCommands) *commandsJSON {
	if e == nil {
		return nil
	}
	return &commandsJSON{
		Rules: e.GetRules(), Running: e.GetRunning(), Queued: e.GetQueued(),
		Failed: e.GetFailed(), Dropped: e.GetDropped(),
	}
}

func unitsToJSON(units []*adminpb.Unit) []unitJSON {
	list := make([]unitJSON, 0, len(units))
	for _, u := range units {
		list = append(list, unitJSON{
			Name: u.GetName(), Kind: u.GetKind(), Replicas: u.GetReplicas(), Scale: u.Scale,
			Disabled: u.GetDisabled(), Retired: u.GetRetired(), SpecHash: u.GetSpecHash(),
			ChangedAt: render.LocalTime(u.GetChangedAt()),
		})
	}
	return list
}

func workersToJSON(workers []*adminpb.Worker) []workerJSON {
	list := make([]workerJSON, 0, len(workers))
	for _, w := range workers {
		item := workerJSON{
			ID: w.GetId(), Unit: w.GetUnit(), Desired: w.GetDesired(), Status: w.GetStatus(), Reason: w.GetReason(),
			PID: w.GetPid(), Port: w.GetPort(), Token: w.GetToken(),
			Incarnation: w.GetIncarnation(), Restarts: w.GetRestarts(),
			Adopted: w.GetAdopted(), Outdated: w.GetOutdated(),
			StartedAt: render.LocalTime(w.GetStartedAt()), LastOutput: w.GetLastOutput(),
			RetryAt: render.LocalTime(w.GetRetryAt()),
			Ready:   w.GetReady(), WaitingFor: w.GetWaitingFor(), Probe: w.GetProbe(),
			StatusText: w.GetStatusText(),
			NextDueAt:  render.LocalTime(w.GetNextDueAt()), LastDueAt: render.LocalTime(w.GetLastDueAt()),
			Unenforced: w.GetUnenforced(), Usage: usageToJSON(w.GetUsage()),
			Unmanaged: w.GetUnmanaged(), Program: w.GetProgram(),
			Modules: modulesToJSON(w.GetAnnouncements()),
		}
		if by := api.OperatorOf(w.GetStoppedBy()); by != nil {
			item.StoppedBy = history.OperatorOf(by)
		}
		for _, c := range w.GetChecks() {
			item.Checks = append(item.Checks, healthJSON{
				Use: c.GetUse(), Probe: c.GetProbe(), Passed: c.GetPassed(), Answer: c.GetAnswer(),
				AnsweredAt: render.LocalTime(c.GetAnsweredAt()), DueAt: render.LocalTime(c.GetDueAt()),
			})
		}
		item.LastExit = exitToJSON(w.GetLastExit())
		list = append(list, item)
	}
	return list
}

func exitToJSON(e *adminpb.Exit) *exitJSON {
	if e == nil {
		return nil
	}
	return &exitJSON{Code: e.Code, Signal: e.Signal, Known: e.GetKnown(), At: render.LocalTime(e.GetAt())}
}

func modulesToJSON(announcements []*adminpb.Announcement) []moduleJSON {
	var modules []moduleJSON
	for _, a := range announcements {
		item := moduleJSON{Module: a.GetModule(), PID: a.GetPid(), APIs: make([]apiJSON, 0, len(a.GetApis()))}
		for _, api := range a.GetApis() {
			item.APIs = append(item.APIs, apiJSON{
				ServiceIDs: append([]string{}, api.GetServiceIds()...),
				Port:       api.GetPort(), Protocol: api.GetProtocol(),
			})
		}
		modules = append(modules, item)
	}
	return modules
}

func servicesToJSON(services []*adminpb.Service) []serviceJSON {
	list := make([]serviceJSON, 0, len(services))
	for _, s := range services {
		item := serviceJSON{
			Name: s.GetName(), Endpoints: make([]endpointJSON, 0, len(s.GetEndpoints())),
			Balance: s.GetBalance(), AffinityKey: s.GetAffinityKey(),
			MaxInFlight: s.GetMaxInFlight(), MaxMessage: s.GetMaxMessage(), Waiting: s.GetWaiting(),
		}
		for _, e := range s.GetEndpoints() {
			item.Endpoints = append(item.Endpoints, endpointToJSON(e))
		}
		list = append(list, item)
	}
	return list
}

func endpointToJSON(e *adminpb.Endpoint) endpointJSON {
	item := endpointJSON{
		Address: e.GetAddress(), Worker: e.GetWorker(), Healthy: e.GetHealthy(), Source: e.GetSource(),
		Ejected: e.GetEjected(), EjectedFor: e.GetEjectedFor().AsDuration().Seconds(),
		Reason: e.GetReason(), TTL: e.GetTtl().AsDuration().Seconds(),
		ExpiresAt: render.LocalTime(e.GetExpiresAt()), Probe: e.GetProbe(),
	}
	item.Figures = figuresToJSON(e.GetFigures())
	return item
}

func figuresToJSON(f *adminpb.Figures) *figuresJSON {
	if f == nil {
		return nil
	}
	shown := &figuresJSON{
		Calls: f.GetCalls(), InFlight: f.GetInFlight(), Failures: f.GetFailures(),
		Retries: f.GetRetries(), Ejections: f.GetEjections(), Latency: latencyToJSON(f.GetLatency()),
	}
	if f.GetFailures() == nil {
		shown.Failures = map[string]uint64{}
	}
	return shown
}

func latencyToJSON(l *adminpb.Latency) *latencyJSON {
	var all uint64
	for _, n := range l.GetCounts() {
		all += n
	}
	if all == 0 {
		return nil
	}
	seconds := func(share float64) *float64 {
		bound, _ := api.LatencyAt(l, share)
		if bound == 0 {
			return nil
		}
		return new(bound.Seconds())
	}
	return &latencyJSON{Mean: l.GetSum().AsDuration().Seconds() / float64(all), P50: seconds(0.5), P99: seconds(0.99)}
}

// usageJSON is null if nothing is known, and so are its fields.
type usageJSON struct {
	Resident  int64    `json:"resident"`   // bytes
	CPU       float64  `json:"cpu"`        // seconds
	CPUShare  *float64 `json:"cpu_share"`  // 1 is a whole core
	OpenFiles *int32   `json:"open_files"` // descriptors
	Threads   int32    `json:"threads"`
	Processes int32    `json:"processes"`
}

func usageToJSON(u *adminpb.Usage) *usageJSON {
	if u == nil {
		return nil
	}
	return &usageJSON{
		Resident: u.GetResident(), CPU: u.GetCpu().AsDuration().Seconds(), CPUShare: u.CpuShare,
		OpenFiles: u.OpenFiles, Threads: u.GetThreads(), Processes: u.GetProcesses(),
	}
}
