//go:build e2e && linux

package harness

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Dump is the output of "hsu-master state dump --json". Its fields are repeated here because scripts rely on them.
type Dump struct {
	Source         string    `json:"source"`
	SchemaVersion  int       `json:"schema_version"`
	MasterID       string    `json:"master_id"`
	MasterPID      int       `json:"master_pid"`
	ProcessedCount int64     `json:"processed_count"`
	Workers        []Worker  `json:"workers"`
	Services       []service `json:"services"`
}

// Worker is a worker in a Dump.
type Worker struct {
	ID          string    `json:"id"`
	Unit        string    `json:"unit"`
	Desired     string    `json:"desired"`
	Status      string    `json:"status"`
	Reason      string    `json:"reason"`
	PID         int       `json:"pid"`
	Port        int       `json:"port"`
	Token       string    `json:"token"`
	Incarnation int       `json:"incarnation"`
	Restarts    int       `json:"restarts"`
	Adopted     bool      `json:"adopted"`
	Outdated    bool      `json:"outdated"`
	Probe       string    `json:"probe"`
	WaitingFor  string    `json:"waiting_for"`
	StatusText  string    `json:"status_text"`
	StartedAt   time.Time `json:"started_at"`
	LastExit    *exit     `json:"last_exit"`
	LastOutput  []string  `json:"last_output"`
	LastDueAt   time.Time `json:"last_due_at"`
	Unenforced  []string  `json:"unenforced"`
	StoppedBy   *operator `json:"stopped_by"`
	Checks      []check   `json:"checks"`

	Ready bool `json:"-"` // it gets requests: it is a healthy endpoint in Dump.Services
}

type check struct {
	AnsweredAt time.Time `json:"answered_at"`
}

type operator struct {
	UID     uint32 `json:"uid"`
	Command string `json:"command"`
}

type exit struct {
	Code   *int      `json:"code"`
	Signal *string   `json:"signal"`
	Known  bool      `json:"known"`
	At     time.Time `json:"at"`
}

type service struct {
	Name      string `json:"name"`
	Endpoints []struct {
		Address string `json:"address"`
		Worker  string `json:"worker"`
		Healthy bool   `json:"healthy"`
	} `json:"endpoints"`
}

// Running reports whether the worker runs and gets requests.
func (w Worker) Running() bool { return w.Status == "running" && w.PID > 0 && w.Ready }

// Worker returns the worker with the id.
func (d Dump) Worker(t *testing.T, id string) Worker {
	t.Helper()
	for _, w := range d.Workers {
		if w.ID == id {
			return w
		}
	}
	t.Fatalf("no %s in the dump: %+v", id, d.Workers)
	return Worker{}
}

// Dump returns "hsu-master state dump --json".
func (h *Host) Dump() Dump {
	h.T.Helper()
	d, err := h.TryDump()
	if err != nil {
		h.T.Fatal(err)
	}
	return d
}

// TryDump is Dump for a host that may have no readable state at the moment.
func (h *Host) TryDump() (Dump, error) {
	h.T.Helper()
	r := h.CLI("state", "dump", "--json")
	if r.Code != 0 {
		return Dump{}, fmt.Errorf("state dump: exit code %d: %s", r.Code, r.Stderr)
	}
	var d Dump
	if err := json.Unmarshal([]byte(r.Stdout), &d); err != nil {
		return Dump{}, fmt.Errorf("state dump: %w\n%s", err, r.Stdout)
	}
	ready := map[string]bool{}
	for _, s := range d.Services {
		for _, e := range s.Endpoints {
			ready[e.Worker] = ready[e.Worker] || e.Healthy
		}
	}
	for i := range d.Workers {
		d.Workers[i].Ready = ready[d.Workers[i].ID]
	}
	return d, nil
}

// AwaitWorkers returns the dump in which each of the n workers passes.
func (h *Host) AwaitWorkers(n int, what string, pass func(Worker) bool) Dump {
	h.T.Helper()
	var d Dump
	WaitFor(h.T, fmt.Sprintf("%d workers %s", n, what), func() (err error) {
		if d, err = h.TryDump(); err != nil {
			return err
		}
		for _, w := range d.Workers {
			if !pass(w) {
				return fmt.Errorf("%s is not: %+v", w.ID, w)
			}
		}
		if len(d.Workers) != n {
			return fmt.Errorf("there are %d", len(d.Workers))
		}
		return nil
	})
	return d
}

// AwaitRunning returns the dump in which n workers run and get requests.
func (h *Host) AwaitRunning(n int) Dump {
	h.T.Helper()
	return h.AwaitWorkers(n, "run", Worker.Running)
}

// Instance is the part of a worker that must stay the same if it survives.
type Instance struct {
	PID, Port, Incarnation, Restarts int
	Token                            string
	Born                             uint64 // start time in ticks, from /proc
}

// Instances returns the processes of the dump by worker.
func (d Dump) Instances() map[string]Instance {
	m := map[string]Instance{}
	for _, w := range d.Workers {
		m[w.ID] = Instance{w.PID, w.Port, w.Incarnation, w.Restarts, w.Token, StartTicks(w.PID)}
	}
	return m
}

// WantInstances checks that the workers of the dump are the processes that they were, and were not restarted.
func (d Dump) WantInstances(t *testing.T, before map[string]Instance) {
	t.Helper()
	if diff := cmp.Diff(before, d.Instances()); diff != "" {
		t.Errorf("the workers are not what they were (-before +after):\n%s", diff)
	}
}

// AwaitFailed returns the dump in which n workers have failed for good.
func (h *Host) AwaitFailed(n int) Dump {
	h.T.Helper()
	return h.AwaitWorkers(n, "have failed", func(w Worker) bool { return w.Status == "failed" })
}
