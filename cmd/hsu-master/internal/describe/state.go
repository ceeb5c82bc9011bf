package describe

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor"
)

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

// Missing describes each deviation: of the state, of the status of the master, of wanted workers.
func Missing(state *adminpb.State) []string {
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
	return missing
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

// Offline prints a note if the state comes from the files and not from a running master.
func Offline(w io.Writer, s *adminpb.State) {
	if s.GetSource() == api.SourceOffline {
		fmt.Fprint(w, "no master is running; as last recorded:\n\n")
	}
}

// PrintHeadline prints the headline, in two lines if it is longer than one.
func PrintHeadline(w io.Writer, text string) {
	const end = "): "
	if master, workers, found := strings.Cut(text, end); found && utf8.RuneCountInString(text) > render.PageWidth {
		fmt.Fprintf(w, "%s):\n", render.OnTerminal(w, master))
		text = "  " + workers
	}
	fmt.Fprintln(w, render.OnTerminal(w, text))
}

// recovering reports whether the master has just started, and does not know all of its workers yet.
func recovering(s *adminpb.State) bool { return s.GetStatus() == string(supervisor.Recovering) }

// Headline returns the status of the master, and how many of the wanted workers are ready.
func Headline(s *adminpb.State, now time.Time) string {
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
		if recovering(s) {
			what = "workers not known yet"
		}
	}
	master := strings.TrimSpace("master " + render.Printable(s.GetVersion())) // an embedded one may have no version
	return fmt.Sprintf("%s is %s on %s for %s (pid %d): %s, %d requests processed%s",
		master, render.Printable(s.GetStatus()), render.Printable(s.GetListen()),
		render.Age(s.GetMasterStartedAt(), now),
		s.GetMasterPid(), what, s.GetProcessedCount(), shortText(s))
}

// EventCommands prints the numbers of lost events and failed commands.
func EventCommands(w io.Writer, e *adminpb.EventCommands) {
	if e.GetFailed()+e.GetDropped() > 0 {
		fmt.Fprintf(w, "commands of on_event: %d failed, %d events dropped, %d wait\n\n",
			e.GetFailed(), e.GetDropped(), e.GetQueued())
	}
}

// shortText returns a remark on the count if it may be too low, and since when.
func shortText(state *adminpb.State) string {
	since := render.LocalTime(state.GetCountMayBeShortSince())
	if since == nil {
		return ""
	}
	return fmt.Sprintf(" (may be short since %s)", since.Format(time.RFC3339))
}

// WriteError prints the reason why requests are refused, if they are.
func WriteError(w io.Writer, state *adminpb.State) {
	if reason := state.GetWriteError(); reason != "" {
		fmt.Fprintf(w, "%s\n\n", render.OnTerminal(w, render.Printable(reason)))
	}
}

// BadRecords prints the records that cannot be decoded.
func BadRecords(w io.Writer, state *adminpb.State) {
	for _, key := range slices.Sorted(maps.Keys(state.GetBadRecords())) {
		line := "record " + render.Printable(key) + " is not readable: " + render.Printable(state.GetBadRecords()[key])
		fmt.Fprintf(w, "\n%s\n", render.OnTerminal(w, line))
	}
}

// State prints the whole state.
func State(w io.Writer, state *adminpb.State, now time.Time) error {
	fmt.Fprintf(w, "source           %s\nschema version   %d\nmaster id        %s\n"+
		"master pid       %s\nprocessed count  %d%s\n",
		render.Printable(state.GetSource()), state.GetSchemaVersion(), render.Printable(state.GetMasterId()),
		render.Number(state.GetMasterPid()), state.GetProcessedCount(), shortText(state))
	if scope := state.GetScope(); scope != "" {
		fmt.Fprintf(w, "scope            %s\n", render.Printable(scope))
	}
	fmt.Fprintln(w)
	WriteError(w, state)
	if err := Workers(w, state, now, false); err != nil {
		return err
	}
	if len(state.GetUnits()) > 0 {
		fmt.Fprintln(w)
		if err := unitRecords(w, state.GetUnits()); err != nil {
			return err
		}
	}
	if len(state.GetServices()) > 0 {
		fmt.Fprintln(w)
		if err := Services(w, state.GetServices(), state.GetSource() == api.SourceLive); err != nil {
			return err
		}
	}
	BadRecords(w, state)
	return nil
}
