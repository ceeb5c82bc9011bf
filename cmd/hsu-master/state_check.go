package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/store"
)

func checkCommand() *cli.Command {
	cmd := leafOf("check", "check the state or a backup for damage and contradictions", "FILE", false,
		checkState, jsonOutput())
	cmd.Description = `Without FILE it checks the state: a fresh backup of the running master, or the
files if no master is running. It changes nothing.

It reads every page, decodes every record, runs the check of bbolt, and compares
the records and files with each other. Exit code 5: damage or a contradiction
was found; notes alone are no failure.`
	return cmd
}

// checkJSON is the result of a check.
type checkJSON struct {
	OK       bool            `json:"ok"`
	Problems []store.Problem `json:"problems"`
	Source   string          `json:"source"` // "live", "offline" or "file"
}

const sourceFile = "file"

func checkState(c *cli.Context, file string) error {
	f, err := foldersOf(c)
	if err != nil {
		return err
	}
	p := render.StartProgress(c.App.ErrWriter, "checking the state")
	problems, source, err := check(c.Context, f, file, p)
	p.End()
	if err != nil {
		return err
	}
	w := c.App.Writer
	if c.Bool(jsonFlag) {
		if problems == nil {
			problems = store.Problems{}
		}
		if err := render.JSON(w, checkJSON{problems.OK(), problems, source}); err != nil {
			return err
		}
	} else {
		for _, problem := range problems {
			fmt.Fprintf(w, "%s: %s: %s\n", problem.Severity, render.Printable(problem.Where),
				render.Printable(problem.What))
		}
		if problems.OK() {
			fmt.Fprintln(w, "ok")
		}
	}
	switch {
	case problems.OK():
		return nil
	case source == sourceFile:
		return exit.Hint(fmt.Errorf("%w: %s", exit.ErrUnsound, file), "use another backup")
	}
	return exit.Hint(exit.ErrUnsound, `continue with the newest good backup by "hsu-master run --on-damage recover", `+
		`or with a backup of your own by "hsu-master state restore"; `+
		`a contradiction in a record is settled at the next start`)
}

func check(ctx context.Context, f folders, file string, p *render.Progress) (store.Problems, string, error) {
	if file != "" {
		problems, err := store.CheckFile(file)
		return problems, sourceFile, err
	}
	temp, err := os.CreateTemp("", "hsu-master-check-*.tmp")
	if err != nil {
		return nil, "", fmt.Errorf("check the state: %w", err)
	}
	defer func() { _ = errors.Join(temp.Close(), os.Remove(temp.Name())) }()
	err = fetchState(ctx, f, temp, p)
	if errors.Is(err, exit.ErrNoMaster) {
		problems, err := store.Check(f.state)
		return problems, "offline", offline(f, err)
	}
	if err != nil {
		return nil, "", err
	}
	problems, err := store.CheckLive(f.state, temp.Name())
	return problems, "live", err
}
