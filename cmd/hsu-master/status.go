package main

import (
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
)

func statusCommand() *cli.Command {
	return leaf("status", "tell at a glance how the master and its workers are", func(c *cli.Context) error {
		f, err := foldersOf(c)
		if err != nil {
			return err
		}
		state, err := readState(c.Context, f)
		if err != nil {
			return err
		}
		if c.Bool(jsonFlag) {
			return printJSON(c.App.Writer, stateToJSON(state))
		}
		now := time.Now()
		fmt.Fprintln(c.App.Writer, headline(state, now))
		printWriteError(c.App.Writer, state)
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
	}, jsonOutput())
}

// printOffline says that what follows comes from the file, where it does.
func printOffline(w io.Writer, s *adminpb.State) {
	if s.GetSource() == api.SourceOffline {
		fmt.Fprint(w, "no master is running; as last recorded:\n\n")
	}
}

func headline(s *adminpb.State, now time.Time) string {
	if s.GetSource() == api.SourceOffline {
		return fmt.Sprintf("no master is running; as last recorded, with %d requests processed%s:", s.GetProcessedCount(), shortText(s))
	}
	ready := map[string]bool{}
	for _, service := range s.GetServices() {
		for _, e := range service.GetEndpoints() {
			if e.GetHealthy() && e.GetWorker() != "" {
				ready[e.GetWorker()] = true
			}
		}
	}
	what := fmt.Sprintf("%d of %d workers ready", len(ready), len(s.GetWorkers()))
	if len(s.GetWorkers()) == 0 {
		what = "standalone"
	}
	return fmt.Sprintf("master %s is %s on %s for %s (pid %d): %s, %d requests processed%s",
		printable(s.GetVersion()), printable(s.GetStatus()), printable(s.GetListen()), age(s.GetMasterStartedAt(), now), s.GetMasterPid(), what, s.GetProcessedCount(), shortText(s))
}
