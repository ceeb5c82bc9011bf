package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/describe"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/store"
)

func statusCommand() *cli.Command {
	cmd := leaf("status", "show the status of the master and its workers", func(c *cli.Context) error {
		f, err := foldersOf(c)
		if err != nil {
			return err
		}
		state, err := readState(c.Context, f)
		if _, damaged := errors.AsType[*store.DamagedError](err); damaged {
			next := exit.NextStep(err)
			//nolint:errorlint // the exit code is that of ErrNoMaster, 3, not that of err, 5
			return exit.Hint(fmt.Errorf("%w, and its state cannot be read: %v", exit.ErrNoMaster, err), "%s", next)
		}
		if err != nil {
			return err
		}
		if err := printStatus(c, state); err != nil {
			return err
		}
		return verdict(state)
	}, jsonOutput())
	cmd.Description = `Exit codes: 0 the master is running, and each wanted worker is running, has
completed, or is scheduled after a good run, 1 some are not, or not yet, or the
state cannot be written, 3 no master is running.`
	return cmd
}

func printStatus(c *cli.Context, state *adminpb.State) error {
	if c.Bool(jsonFlag) {
		return render.JSON(c.App.Writer, stateToJSON(state))
	}
	now := time.Now()
	describe.PrintHeadline(c.App.Writer, describe.Headline(state, now))
	describe.WriteError(c.App.Writer, state)
	describe.EventCommands(c.App.Writer, state.GetEventCommands())
	if err := describe.Workers(c.App.Writer, state, now, false); err != nil {
		return err
	}
	if state.GetSource() == api.SourceLive {
		if err := describe.Overview(c.App.Writer, state.GetServices()); err != nil {
			return err
		}
	}
	describe.BadRecords(c.App.Writer, state)
	return nil
}

// verdict returns the error that determines the exit code of status, or nil if the master runs and all wanted workers
// run or have completed.
func verdict(state *adminpb.State) error {
	if state.GetSource() != api.SourceLive {
		return exit.Hint(exit.ErrNoMaster, `start one with "hsu-master run"`)
	}
	missing := describe.Missing(state)
	if len(missing) == 0 {
		return nil
	}
	const shown = 5
	more := ""
	if len(missing) > shown {
		more = fmt.Sprintf(" and %d more", len(missing)-shown)
		missing = missing[:shown]
	}
	return exit.Hint(fmt.Errorf("not everything that is wanted is running: %s%s",
		render.Printable(strings.Join(missing, ", ")), more),
		`"hsu-master why" explains it; workers that are starting or in backoff only need time`)
}
