package main

import (
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/describe"
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
		render.Number(state.GetMasterPid()), state.GetProcessedCount(), describe.ShortText(state))
	if scope := state.GetScope(); scope != "" {
		fmt.Fprintf(w, "scope            %s\n", render.Printable(scope))
	}
	fmt.Fprintln(w)
	describe.WriteError(w, state)
	if err := describe.Workers(w, state.GetWorkers(), now, false); err != nil {
		return err
	}
	if len(state.GetUnits()) > 0 {
		fmt.Fprintln(w)
		if err := describe.UnitRecords(w, state.GetUnits()); err != nil {
			return err
		}
	}
	if len(state.GetServices()) > 0 {
		fmt.Fprintln(w)
		if err := printServices(w, state.GetServices(), state.GetSource() == api.SourceLive); err != nil {
			return err
		}
	}
	describe.BadRecords(w, state)
	return nil
}
