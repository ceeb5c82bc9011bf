package main

import (
	"time"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/describe"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
)

func workerCommand() *cli.Command {
	return group("worker", "list, start, stop, restart, signal and count workers",
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
				return render.JSON(c.App.Writer, workersJSON{
					state.GetSource(), workersToJSON(state.GetWorkers()), unitsToJSON(state.GetUnits()),
				})
			}
			describe.Offline(c.App.Writer, state)
			if err := describe.Workers(c.App.Writer, state.GetWorkers(), time.Now(), c.Bool(wideFlag)); err != nil {
				return err
			}
			describe.Scales(c.App.Writer, state.GetUnits())
			describe.BadRecords(c.App.Writer, state)
			return nil
		}, jsonOutput(), wideOutput()),
		logsCommand(),
		inspectCommand(),
		startCommand(), stopCommand(), restartCommand(), signalCommand(), scaleCommand())
}
