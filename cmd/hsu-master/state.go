package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
)

func stateCommand() *cli.Command {
	return group("state", "inspect, back up and restore the state of the master",
		leaf("dump", "print the whole state", dumpState, jsonOutput()),
		planCommand(),
		checkCommand(),
		backupCommand(),
		restoreCommand(),
		compactCommand(),
		migrateCommand())
}

func dumpState(c *cli.Context) error {
	f, err := foldersOf(c)
	if err != nil {
		return err
	}
	state, err := readState(c.Context, f)
	if err != nil {
		return err
	}
	if c.Bool(jsonFlag) {
		return render.JSON(c.App.Writer, stateToJSON(state))
	}
	return printState(c.App.Writer, state, time.Now())
}

func printState(w io.Writer, state *adminpb.State, now time.Time) error {
	fmt.Fprintf(w, "source           %s\nschema version   %d\nmaster id        %s\n"+
		"master pid       %s\nprocessed count  %d%s\n",
		render.Printable(state.GetSource()), state.GetSchemaVersion(), render.Printable(state.GetMasterId()),
		render.Number(state.GetMasterPid()), state.GetProcessedCount(), shortText(state))
	if scope := state.GetScope(); scope != "" {
		fmt.Fprintf(w, "scope            %s\n", render.Printable(scope))
	}
	fmt.Fprintln(w)
	printWriteError(w, state)
	if err := printWorkers(w, state.GetWorkers(), now); err != nil {
		return err
	}
	if len(state.GetUnits()) > 0 {
		fmt.Fprintln(w)
		if err := printUnitRecords(w, state.GetUnits()); err != nil {
			return err
		}
	}
	if len(state.GetServices()) > 0 {
		fmt.Fprintln(w)
		if err := printServices(w, state.GetServices(), state.GetSource() == api.SourceLive); err != nil {
			return err
		}
	}
	printBadRecords(w, state)
	return nil
}

// shortText returns a remark on the count if it may be too low, and since when.
func shortText(state *adminpb.State) string {
	since := render.LocalTime(state.GetCountMayBeShortSince())
	if since == nil {
		return ""
	}
	return fmt.Sprintf(" (may be short since %s)", since.Format(time.RFC3339))
}

// printWriteError prints the reason why requests are refused, if they are.
func printWriteError(w io.Writer, state *adminpb.State) {
	if reason := state.GetWriteError(); reason != "" {
		fmt.Fprintf(w, "%s\n\n", render.Printable(reason))
	}
}

// printBadRecords prints the records that cannot be decoded.
func printBadRecords(w io.Writer, state *adminpb.State) {
	for _, key := range slices.Sorted(maps.Keys(state.GetBadRecords())) {
		fmt.Fprintf(w, "\nrecord %s is not readable: %s\n", render.Printable(key), render.Printable(state.GetBadRecords()[key]))
	}
}
