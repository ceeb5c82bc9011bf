package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/api/adminpb"
)

func stateCommand() *cli.Command {
	return group("state", "look into what the master has recorded",
		leaf("dump", "print the whole state, of the running master or from its file", dumpState, jsonOutput()))
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
	w := c.App.Writer
	if c.Bool(jsonFlag) {
		return printJSON(w, stateToJSON(state))
	}
	fmt.Fprintf(w, "source           %s\nschema version   %d\nmaster id        %s\nmaster pid       %s\nprocessed count  %d\n\n",
		state.GetSource(), state.GetSchemaVersion(), state.GetMasterId(), number(state.GetMasterPid()), state.GetProcessedCount())
	if err := printWorkers(w, state.GetWorkers(), time.Now()); err != nil {
		return err
	}
	for _, service := range state.GetServices() {
		fmt.Fprintf(w, "\n%s\n", service.GetName())
		for _, e := range service.GetEndpoints() {
			health := "not ready"
			if e.GetHealthy() {
				health = "ready"
			}
			fmt.Fprintf(w, "  %s  %s  %s\n", e.GetAddress(), e.GetWorker(), health)
		}
	}
	printBadRecords(w, state)
	return nil
}

// printBadRecords says what the rest of the output cannot show.
func printBadRecords(w io.Writer, state *adminpb.State) {
	for _, key := range slices.Sorted(maps.Keys(state.GetBadRecords())) {
		fmt.Fprintf(w, "\nrecord %s is not readable: %s\n", key, state.GetBadRecords()[key])
	}
}
