package main

import (
	"context"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/describe"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/top"
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
				return render.JSON(c.App.Writer, workersJSON{
					state.GetSource(), workersToJSON(state.GetWorkers()), unitsToJSON(state.GetUnits()),
				})
			}
			describe.Offline(c.App.Writer, state)
			if err := describe.Workers(c.App.Writer, state, time.Now(), c.Bool(wideFlag)); err != nil {
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

const wideFlag = "wide"

func wideOutput() cli.Flag {
	return &cli.BoolFlag{Name: wideFlag, Usage: "add what the processes of each worker use"}
}

// withShares returns the state with the recent use of the processor. The master knows it if it has been asked within
// the last minute; otherwise the state is read again after a second.
func withShares(ctx context.Context, f folders, state *adminpb.State) (*adminpb.State, error) {
	unknown := slices.ContainsFunc(state.GetWorkers(), func(w *adminpb.Worker) bool {
		return w.GetUsage() != nil && w.GetUsage().CpuShare == nil
	})
	if !unknown || state.GetSource() != api.SourceLive {
		return state, nil
	}
	select {
	case <-time.After(top.Window):
		return readState(ctx, f)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
