package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor"
)

func statusCommand() *cli.Command {
	cmd := leaf("status", "show the status of the master and its workers", func(c *cli.Context) error {
		f, err := foldersOf(c)
		if err != nil {
			return err
		}
		state, err := readState(c.Context, f)
		if _, damaged := errors.AsType[*store.DamagedError](err); damaged {
			//nolint:errorlint // the exit code is that of errNoMaster, 3, not that of err, 5
			return hint(fmt.Errorf("%w, and its state cannot be read: %v", errNoMaster, err), "%s", nextStep(err))
		}
		if err != nil {
			return err
		}
		if err := printStatus(c, state); err != nil {
			return err
		}
		return verdict(state)
	}, jsonOutput())
	cmd.Description = `Exit codes: 0 the master is running, and each wanted worker is running, has
completed, or is scheduled after a good run, 1 some are not, or not yet, or the
state cannot be written, 3 no master is running.`
	return cmd
}

func printStatus(c *cli.Context, state *adminpb.State) error {
	if c.Bool(jsonFlag) {
		return printJSON(c.App.Writer, stateToJSON(state))
	}
	now := time.Now()
	printHeadline(c.App.Writer, headline(state, now))
	printWriteError(c.App.Writer, state)
	printEventCommands(c.App.Writer, state.GetEventCommands())
	if err := printWorkers(c.App.Writer, state.GetWorkers(), now); err != nil {
		return err
	}
	if state.GetSource() == api.SourceLive {
		if err := overview(c.App.Writer, state.GetServices()); err != nil {
			return err
		}
	}
	printBadRecords(c.App.Writer, state)
	return nil
}

// verdict returns the error that determines the exit code of status, or nil if the master runs and all wanted workers
// run or have completed.
func verdict(state *adminpb.State) error {
	if state.GetSource() != api.SourceLive {
		return hint(errNoMaster, `start one with "hsu-master run"`)
	}
	var missing []string
	for _, w := range wantedWorkers(state) {
		if w.GetDesired() == string(records.DesiredRunning) && !good(w) {
			what := phrase(w.GetStatus())
			if w.GetStatus() == string(records.StatusScheduled) {
				what += " after a run that failed"
			}
			missing = append(missing, fmt.Sprintf("%s is %s", w.GetId(), what))
		}
	}
	if state.GetStatus() != string(supervisor.Running) {
		missing = append([]string{"the master is " + state.GetStatus()}, missing...)
	}
	if state.GetWriteError() != "" {
		missing = append([]string{"the state cannot be written"}, missing...)
	}
	if len(missing) == 0 {
		return nil
	}
	const shown = 5
	more := ""
	if len(missing) > shown {
		more = fmt.Sprintf(" and %d more", len(missing)-shown)
		missing = missing[:shown]
	}
	return hint(fmt.Errorf("not everything that is wanted is running: %s%s",
		printable(strings.Join(missing, ", ")), more),
		`"hsu-master why" explains it; workers that are starting or in backoff only need time`)
}

// wantedWorkers returns the workers without those beyond the wanted number of replicas: the spare one of a rollout, and
// surplus ones that are being stopped.
func wantedWorkers(state *adminpb.State) []*adminpb.Worker {
	wanted := map[string]int32{}
	for _, u := range state.GetUnits() {
		wanted[u.GetName()] = u.GetReplicas()
		switch {
		case u.GetRetired(), u.GetDisabled():
			wanted[u.GetName()] = 0
		case u.Scale != nil:
			wanted[u.GetName()] = u.GetScale()
		}
	}
	return slices.DeleteFunc(slices.Clone(state.GetWorkers()), func(w *adminpb.Worker) bool {
		n, known := wanted[w.GetUnit()]
		index, err := strconv.ParseInt(strings.TrimPrefix(w.GetId(), w.GetUnit()+"-"), 10, 32)
		return known && err == nil && !w.GetUnmanaged() && index >= int64(n)
	})
}

// good reports whether a wanted worker is as it should be. The reason of a scheduled one is why its last run failed.
func good(w *adminpb.Worker) bool {
	switch w.GetStatus() {
	case string(records.StatusRunning), string(records.StatusCompleted):
		return true
	case string(records.StatusScheduled):
		return w.GetReason() == ""
	}
	return false
}

// printOffline prints a note if the state comes from the files and not from a running master.
func printOffline(w io.Writer, s *adminpb.State) {
	if s.GetSource() == api.SourceOffline {
		fmt.Fprint(w, "no master is running; as last recorded:\n\n")
	}
}

// printHeadline prints the headline, in two lines if it is longer than one.
func printHeadline(w io.Writer, text string) {
	const end = "): "
	if master, workers, found := strings.Cut(text, end); found && utf8.RuneCountInString(text) > pageWidth {
		fmt.Fprintf(w, "%s):\n", onTerminal(w, master))
		text = "  " + workers
	}
	fmt.Fprintln(w, onTerminal(w, text))
}

func headline(s *adminpb.State, now time.Time) string {
	if s.GetSource() == api.SourceOffline {
		return fmt.Sprintf("no master is running; as last recorded, with %d requests processed%s:",
			s.GetProcessedCount(), shortText(s))
	}
	ready, workers := map[string]bool{}, wantedWorkers(s)
	for _, service := range s.GetServices() {
		for _, e := range service.GetEndpoints() {
			if e.GetHealthy() && e.GetWorker() != "" {
				ready[e.GetWorker()] = true
			}
		}
	}
	for _, w := range s.GetWorkers() {
		if w.GetReady() { // including workers that offer no service
			ready[w.GetId()] = true
		}
	}
	up, scheduled := 0, 0
	for _, w := range workers {
		if ready[w.GetId()] {
			up++
		}
		if w.GetStatus() == string(records.StatusScheduled) {
			scheduled++
		}
	}
	what := fmt.Sprintf("%d of %d workers ready", up, len(workers))
	if scheduled > 0 {
		what += fmt.Sprintf(", %d scheduled", scheduled)
	}
	if len(s.GetWorkers()) == 0 {
		what = "standalone"
	}
	return fmt.Sprintf("master %s is %s on %s for %s (pid %d): %s, %d requests processed%s",
		printable(s.GetVersion()), printable(s.GetStatus()), printable(s.GetListen()), age(s.GetMasterStartedAt(), now),
		s.GetMasterPid(), what, s.GetProcessedCount(), shortText(s))
}

// printEventCommands prints the numbers of lost events and failed commands.
func printEventCommands(w io.Writer, e *adminpb.EventCommands) {
	if e.GetFailed()+e.GetDropped() > 0 {
		fmt.Fprintf(w, "commands of on_event: %d failed, %d events dropped, %d wait\n\n",
			e.GetFailed(), e.GetDropped(), e.GetQueued())
	}
}
