//go:build e2e && linux && (crash || torture)

package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/store/records"
)

// lateWorker is the worker of the unit with a schedule. Its due times have come while no master ran: the next one runs
// it once for the last of them.
const lateWorker = "late-0"

// scheduled is the state of that unit as the test knows it.
type scheduled struct {
	program, notes string
	due            time.Time         // the last due time; zero before the first
	runs           map[string]string // instances that were recorded, by due time
	before         int               // runs that had begun before that
}

// addScheduled adds the unit to the file of the rig.
func (r *rig) addScheduled() error {
	s := &scheduled{
		program: filepath.Join(r.dir, "late"), notes: filepath.Join(r.dir, "late.runs"), runs: map[string]string{},
	}
	r.scheduled = s
	script := fmt.Sprintf("#!/bin/sh\necho \"$HSU_WORKER_TOKEN\" >>%q\n", s.notes)
	return harness.WriteProgram(s.program, []byte(script))
}

// unit returns the unit for the file.
func (s *scheduled) unit() string {
	if s == nil {
		return ""
	}
	return fmt.Sprintf("  late: {kind: managed, command: [%q], schedule: \"0 0 1 1 *\", missed: run-once}\n", s.program)
}

// begun returns the tokens of the runs that have begun.
func (s *scheduled) begun() []string {
	text, _ := os.ReadFile(s.notes)
	return strings.Fields(string(text))
}

// check checks the record of the worker: it never goes back to an earlier due time, and names one run for each.
func (s *scheduled) check(w records.Worker, fail func(string, ...any)) {
	if w.Due == nil || w.Due.Last.IsZero() {
		return
	}
	if w.Due.Last.After(s.due) || !s.due.IsZero() && w.Due.Last.Before(s.due.Add(-time.Minute)) {
		fail("the last due time of %s is %s, want %s or the one before", w.ID, w.Due.Last, s.due)
	}
	if w.Instance == nil || w.Instance.Token == "" {
		return
	}
	at := w.Due.Last.String()
	if other := s.runs[at]; other != "" && other != w.Instance.Token {
		fail("%s was run for %s as %s and as %s", w.ID, at, other, w.Instance.Token)
	}
	s.runs[at] = w.Instance.Token
	if n := len(s.begun()) - s.before; n > 1 {
		fail("%s has begun %d runs for %s", w.ID, n, s.due)
	}
}

// waits removes the worker from the report of a running master. It returns an error unless that has dealt with the last
// due time: it was run once, or shows that the run was cut off.
func (s *scheduled) waits(state *adminpb.State) error {
	if s == nil {
		return nil
	}
	i := slices.IndexFunc(state.GetWorkers(), func(w *adminpb.Worker) bool { return w.GetId() == lateWorker })
	if i < 0 {
		return fmt.Errorf("%s is not there", lateWorker)
	}
	w := state.GetWorkers()[i]
	if w.GetStatus() != "scheduled" || w.GetPid() != 0 || !s.due.IsZero() && !w.GetLastDueAt().AsTime().Equal(s.due) {
		return fmt.Errorf("%s is not scheduled after its run for %s: %v", lateWorker, s.due, w)
	}
	n := len(s.begun()) - s.before
	if n > 1 || n == 0 && !s.due.IsZero() && !strings.Contains(w.GetReason(), "cut off") {
		return fmt.Errorf("%s has begun %d runs for %s: %v", lateWorker, n, s.due, w)
	}
	state.Workers = slices.Delete(state.GetWorkers(), i, i+1)
	return nil
}
