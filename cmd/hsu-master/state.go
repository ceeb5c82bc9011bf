package main

import (
	"time"

	"github.com/urfave/cli/v2"

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
	return describe.State(c.App.Writer, state, time.Now())
}
