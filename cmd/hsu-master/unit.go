package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/describe"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor"
)

func unitCommand() *cli.Command {
	return group("unit", "list the units, and enable or disable them",
		leaf("list", "list the units", listUnits, jsonOutput()),
		actCommand(supervisor.VerbEnable, "let a unit have its workers again", "UNIT...",
			`Takes back "unit disable", and returns when the workers are ready.`),
		actCommand(supervisor.VerbDisable, "stop the workers of a unit, and start none", "UNIT...",
			`Stops and forgets the workers of units, those that depend on others first. The
units stay disabled over restarts and reloads, whatever number of workers they
are given, until "unit enable".`, evenNeeded()))
}

// unitSummaryJSON is an item of the output of "unit list --json". Scripts depend on it.
type unitSummaryJSON struct {
	Unit     string         `json:"unit"`
	Kind     string         `json:"kind"`
	Enabled  *bool          `json:"enabled"`  // nil if no master runs, and the file may disable it
	Replicas int            `json:"replicas"` // that it shall have while it is enabled
	Running  int            `json:"running"`
	Statuses map[string]int `json:"statuses"` // of its workers
}

func listUnits(c *cli.Context) error {
	f, err := foldersOf(c)
	if err != nil {
		return err
	}
	state, err := readState(c.Context, f)
	if err != nil {
		return err
	}
	summaries := summarize(state)
	if c.Bool(jsonFlag) {
		return render.JSON(c.App.Writer, summaries)
	}
	describe.Offline(c.App.Writer, state)
	return printSummaries(c.App.Writer, summaries)
}

func summarize(state *adminpb.State) []unitSummaryJSON {
	summaries := []unitSummaryJSON{}
	for _, u := range state.GetUnits() {
		if u.GetRetired() {
			continue
		}
		s := unitSummaryJSON{
			Unit: u.GetName(), Kind: u.GetKind(), Replicas: int(u.GetReplicas()), Statuses: map[string]int{},
		}
		if u.Scale != nil {
			s.Replicas = int(u.GetScale())
		}
		for _, w := range state.GetWorkers() {
			if w.GetUnit() != u.GetName() {
				continue
			}
			s.Statuses[w.GetStatus()]++
			if w.GetStatus() == string(records.StatusRunning) {
				s.Running++
			}
		}
		s.Enabled = enabled(u, state.GetSource(), len(s.Statuses) > 0)
		summaries = append(summaries, s)
	}
	return summaries
}

// enabled reports whether a unit is enabled, and nil if that is not known: the record of a unit that its file disables
// is that of a unit with replicas: 0.
func enabled(u *adminpb.Unit, source string, hasWorkers bool) *bool {
	if source != api.SourceLive && !u.GetDisabled() && u.GetReplicas() == 0 && !hasWorkers {
		return nil
	}
	return new(!u.GetDisabled())
}

func printSummaries(w io.Writer, summaries []unitSummaryJSON) error {
	if len(summaries) == 0 {
		_, err := fmt.Fprintln(w, "no units")
		return err
	}
	table := render.NewTable("UNIT", "KIND", "ENABLED", "RUNNING", "STATUS")
	for _, s := range summaries {
		enabled := "-"
		switch {
		case s.Enabled == nil:
		case *s.Enabled:
			enabled = "yes"
		default:
			enabled = "no"
		}
		table.Row(render.Printable(s.Unit), render.Printable(render.OrDash(s.Kind)), enabled,
			fmt.Sprintf("%d of %d", s.Running, s.Replicas), render.Printable(describe.StatusCounts(s.Statuses)))
	}
	return table.Print(w)
}
