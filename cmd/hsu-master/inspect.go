package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/describe"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/supervisor/history"
)

func inspectCommand() *cli.Command {
	cmd := leafOf("inspect", "show all that is known of a worker, or of those of a unit", "ID|UNIT", true,
		inspectWorkers, jsonOutput())
	cmd.Description = `It reads the state files if no master runs. "hsu-master why" says in one screen
what matters. Variables of the environment are listed without their values.`
	return cmd
}

// inspectJSON is what "worker inspect --json" prints.
type (
	inspectJSON struct {
		Source  string           `json:"source"`
		Workers []inspectionJSON `json:"workers"`
	}
	inspectionJSON struct {
		Worker      workerJSON        `json:"worker"`
		Since       *time.Time        `json:"since,omitempty"` // of its status
		Exits       []pastExitJSON    `json:"exits"`           // the newest first
		Events      []history.Line    `json:"events"`          // the newest first
		Policy      *policyJSON       `json:"policy"`
		Settings    map[string]string `json:"settings"`
		CommandLine []string          `json:"command_line,omitempty"`
		PIDs        []int32           `json:"pids,omitempty"`
		Listens     []int32           `json:"listens,omitempty"` // TCP ports
		Cgroup      string            `json:"cgroup,omitempty"`
		Log         string            `json:"log,omitempty"`
		Outdated    []string          `json:"outdated_because,omitempty"`
		SpecHash    string            `json:"spec_hash,omitempty"`
		Retired     bool              `json:"retired"`
		Hidden      string            `json:"hidden,omitempty"`
		Calls       *figuresJSON      `json:"calls,omitempty"`
	}
	pastExitJSON struct {
		Exit   exitJSON `json:"exit"`
		Reason string   `json:"reason,omitempty"`
	}
	policyJSON struct {
		Restart      string   `json:"restart"`
		Restarts     int32    `json:"restarts"` // allowed within window
		Window       float64  `json:"window"`   // seconds, as all durations
		Spent        int32    `json:"spent"`
		RetryFailed  *float64 `json:"retry_failed"` // null if a failed worker is given up
		StartTimeout float64  `json:"start_timeout"`
		StopGrace    float64  `json:"stop_grace"`
	}
)

func inspectWorkers(c *cli.Context, name string) error {
	f, err := foldersOf(c)
	if err != nil {
		return err
	}
	state, err := readState(c.Context, f)
	if err != nil {
		return err
	}
	resp, err := inspect(c.Context, f, state, &adminpb.InspectRequest{Names: []string{name}, Processes: true})
	if err != nil {
		return err
	}
	if c.Bool(jsonFlag) {
		shown := inspectJSON{Source: state.GetSource(), Workers: []inspectionJSON{}}
		for _, in := range resp.GetInspections() {
			shown.Workers = append(shown.Workers, inspectionToJSON(in))
		}
		return render.JSON(c.App.Writer, shown)
	}
	live, now := state.GetSource() == api.SourceLive, time.Now()
	describe.Offline(c.App.Writer, state)
	if len(resp.GetInspections()) == 0 {
		describe.Why(c.App.Writer, name, resp, live, now)
	}
	for i, in := range resp.GetInspections() {
		if i > 0 {
			fmt.Fprintln(c.App.Writer)
		}
		describe.Inspection(c.App.Writer, in, live, now)
	}
	return nil
}

func inspectionToJSON(in *adminpb.Inspection) inspectionJSON {
	shown := inspectionJSON{
		Worker: workersToJSON([]*adminpb.Worker{in.GetWorker()})[0], Since: render.LocalTime(in.GetSince()),
		Exits: []pastExitJSON{}, Events: []history.Line{}, Settings: map[string]string{},
		CommandLine: in.GetCommandLine(), PIDs: in.GetPids(), Listens: in.GetListens(), Cgroup: in.GetCgroup(),
		Log: in.GetLog(), Outdated: in.GetOutdated(), SpecHash: in.GetSpecHash(), Retired: in.GetRetired(),
		Hidden: in.GetHidden(), Calls: figuresToJSON(in.GetWorker().GetCalls()),
	}
	for _, e := range in.GetExits() {
		shown.Exits = append(shown.Exits, pastExitJSON{*exitToJSON(e.GetExit()), e.GetReason()})
	}
	for _, e := range in.GetEvents() {
		shown.Events = append(shown.Events, history.LineOf(api.EntryOf(e)))
	}
	for _, s := range in.GetSettings() {
		shown.Settings[s.GetKey()] = s.GetValue()
	}
	if p := in.GetPolicy(); p != nil {
		shown.Policy = &policyJSON{
			Restart: p.GetRestart(), Restarts: p.GetRestarts(), Spent: p.GetSpent(),
			Window:       p.GetWindow().AsDuration().Seconds(),
			StartTimeout: p.GetStartTimeout().AsDuration().Seconds(),
			StopGrace:    p.GetStopGrace().AsDuration().Seconds(),
		}
		if p.GetRetryFailed() != nil {
			shown.Policy.RetryFailed = new(p.GetRetryFailed().AsDuration().Seconds())
		}
	}
	return shown
}
