package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/core-tools/hsu-master/api/adminpb"
)

const jsonFlag = "json"

func jsonOutput() cli.Flag {
	return &cli.BoolFlag{Name: jsonFlag, Usage: "print JSON, for scripts"}
}

// The JSON that people script against: fields are added, never renamed.
type (
	stateJSON struct {
		Source         string            `json:"source"`
		SchemaVersion  uint64            `json:"schema_version"`
		MasterID       string            `json:"master_id"`
		MasterPID      int32             `json:"master_pid"`
		Status         string            `json:"status,omitempty"`
		ProcessedCount int64             `json:"processed_count"`
		Workers        []workerJSON      `json:"workers"`
		Services       []serviceJSON     `json:"services"`
		BadRecords     map[string]string `json:"bad_records,omitempty"`
	}
	workersJSON struct {
		Workers []workerJSON `json:"workers"`
	}
	workerJSON struct {
		ID          string     `json:"id"`
		Unit        string     `json:"unit"`
		Desired     string     `json:"desired"`
		Status      string     `json:"status"`
		Reason      string     `json:"reason,omitempty"`
		PID         int32      `json:"pid"`
		Port        int32      `json:"port"`
		Token       string     `json:"token"`
		Incarnation uint64     `json:"incarnation"`
		Restarts    uint64     `json:"restarts"`
		Adopted     bool       `json:"adopted"`
		Outdated    bool       `json:"outdated"`
		StartedAt   *time.Time `json:"started_at,omitempty"`
		LastExit    *exitJSON  `json:"last_exit,omitempty"`
		LastOutput  []string   `json:"last_output,omitempty"`
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
	}
	endpointJSON struct {
		Address string `json:"address"`
		Worker  string `json:"worker"`
		Healthy bool   `json:"healthy"`
	}
)

func stateToJSON(s *adminpb.State) stateJSON {
	services := make([]serviceJSON, 0, len(s.GetServices()))
	for _, service := range s.GetServices() {
		endpoints := make([]endpointJSON, 0, len(service.GetEndpoints()))
		for _, e := range service.GetEndpoints() {
			endpoints = append(endpoints, endpointJSON{e.GetAddress(), e.GetWorker(), e.GetHealthy()})
		}
		services = append(services, serviceJSON{service.GetName(), endpoints})
	}
	return stateJSON{
		Source:         s.GetSource(),
		SchemaVersion:  s.GetSchemaVersion(),
		MasterID:       s.GetMasterId(),
		MasterPID:      s.GetMasterPid(),
		Status:         s.GetStatus(),
		ProcessedCount: s.GetProcessedCount(),
		Workers:        workersToJSON(s.GetWorkers()),
		Services:       services,
		BadRecords:     s.GetBadRecords(),
	}
}

func workersToJSON(workers []*adminpb.Worker) []workerJSON {
	list := make([]workerJSON, 0, len(workers))
	for _, w := range workers {
		item := workerJSON{
			ID: w.GetId(), Unit: w.GetUnit(), Desired: w.GetDesired(), Status: w.GetStatus(), Reason: w.GetReason(),
			PID: w.GetPid(), Port: w.GetPort(), Token: w.GetToken(),
			Incarnation: w.GetIncarnation(), Restarts: w.GetRestarts(),
			Adopted: w.GetAdopted(), Outdated: w.GetOutdated(),
			StartedAt: timeOf(w.GetStartedAt()), LastOutput: w.GetLastOutput(),
		}
		if e := w.GetLastExit(); e != nil {
			item.LastExit = &exitJSON{Code: e.Code, Signal: e.Signal, Known: e.GetKnown(), At: timeOf(e.GetAt())}
		}
		list = append(list, item)
	}
	return list
}

func timeOf(t *timestamppb.Timestamp) *time.Time {
	if t == nil {
		return nil
	}
	local := t.AsTime().Local()
	return &local
}

func printJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// printWorkers prints an aligned table, and below it why a worker is not running.
func printWorkers(w io.Writer, workers []*adminpb.Worker, now time.Time) error {
	if len(workers) == 0 {
		_, err := fmt.Fprintln(w, "no workers")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "WORKER\tSTATUS\tPID\tPORT\tAGE\tRESTARTS\tLAST EXIT\tNOTE")
	for _, item := range workers {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n",
			item.GetId(), item.GetStatus(), number(item.GetPid()), number(item.GetPort()),
			age(item.GetStartedAt(), now), item.GetRestarts(), exitText(item.GetLastExit(), now), note(item))
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	for _, item := range workers {
		if item.GetReason() == "" && len(item.GetLastOutput()) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s is %s: %s\n", item.GetId(), item.GetStatus(), item.GetReason())
		for _, line := range item.GetLastOutput() {
			// Quoted where it could drive the terminal: the worker wrote it.
			fmt.Fprintf(w, "  | %s\n", printable(line))
		}
	}
	return nil
}

func printable(line string) string {
	quoted := strconv.Quote(line)
	return quoted[1 : len(quoted)-1]
}

func note(w *adminpb.Worker) string {
	switch {
	case w.GetOutdated() && w.GetAdopted():
		return "adopted, outdated"
	case w.GetOutdated():
		return "outdated"
	case w.GetAdopted():
		return "adopted"
	}
	return ""
}

func number(n int32) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(int(n))
}

func age(since *timestamppb.Timestamp, now time.Time) string {
	if since == nil {
		return "-"
	}
	return shortAge(now.Sub(since.AsTime()))
}

// shortAge is precise to the unit that matters: 42s, 3m, 5h, 12d.
func shortAge(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

func exitText(e *adminpb.Exit, now time.Time) string {
	switch {
	case e == nil:
		return "-"
	case !e.GetKnown():
		return "unknown " + age(e.GetAt(), now) + " ago"
	case e.Signal != nil:
		return e.GetSignal() + " " + age(e.GetAt(), now) + " ago"
	}
	return fmt.Sprintf("code %d %s ago", e.GetCode(), age(e.GetAt(), now))
}
