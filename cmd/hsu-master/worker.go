package main

import (
	"time"

	"github.com/urfave/cli/v2"
)

func workerCommand() *cli.Command {
	return group("worker", "list, start, stop, restart, signal and scale workers, print logs",
		leaf("list", "list the workers", func(c *cli.Context) error {
			f, err := foldersOf(c)
			if err != nil {
				return err
			}
			state, err := readState(c.Context, f)
			if err == nil && c.Bool(wideFlag) {
				state, err = withShares(c.Context, f, state)
			}
			if err != nil {
				return err
			}
			if c.Bool(jsonFlag) {
				return printJSON(c.App.Writer, workersJSON{
					state.GetSource(), workersToJSON(state.GetWorkers()), unitsToJSON(state.GetUnits()),
				})
			}
			printOffline(c.App.Writer, state)
			var more []column
			if c.Bool(wideFlag) {
				more = usageColumns
			}
			if err := printWorkers(c.App.Writer, state.GetWorkers(), time.Now(), more...); err != nil {
				return err
			}
			printScales(c.App.Writer, state.GetUnits())
			printBadRecords(c.App.Writer, state)
			return nil
		}, jsonOutput(), wideOutput()),
		logsCommand(),
		inspectCommand(),
		startCommand(), stopCommand(), restartCommand(), signalCommand(), scaleCommand())
}
