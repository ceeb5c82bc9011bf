package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/store"
)

func compactCommand() *cli.Command {
	cmd := leaf("compact", "rewrite the database without unused space", compactState, jsonOutput())
	cmd.Description = "Fails if a master is running (exit 4)."
	return cmd
}

// compactedJSON is the result of a compaction.
type compactedJSON struct {
	Before int64 `json:"bytes_before"`
	After  int64 `json:"bytes_after"`
}

func compactState(c *cli.Context) error {
	f, err := foldersOf(c)
	if err != nil {
		return err
	}
	p := render.StartProgress(c.App.ErrWriter, "compacting the state")
	out, err := store.Compact(f.state)
	p.End()
	if err != nil {
		return stateless(f, err)
	}
	if c.Bool(jsonFlag) {
		return render.JSON(c.App.Writer, compactedJSON(out))
	}
	if out.Before == out.After {
		_, err = fmt.Fprintf(c.App.Writer, "%d bytes: nothing to gain\n", out.Before)
		return err
	}
	_, err = fmt.Fprintf(c.App.Writer, "%d bytes before, %d after\n", out.Before, out.After)
	return err
}

// stateless turns the error of a missing state into one with a hint.
func stateless(f folders, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return exit.Hint(fmt.Errorf("%w, and there is no state in %s", exit.ErrNoMaster, f.state),
			"name its --state-dir")
	}
	return err
}

const dryRunFlag = "dry-run"

func migrateCommand() *cli.Command {
	cmd := leaf("migrate", "back up the state and migrate it to the schema of this release", migrateState,
		&cli.BoolFlag{
			Name:  dryRunFlag,
			Usage: "migrate a temporary copy, and print the steps",
		}, jsonOutput())
	cmd.Description = `The next start does the same by itself. Fails if a master is running (exit 4),
except with --dry-run, which asks the running master for the copy.`
	return cmd
}

// migrationJSON is the result of a migration, or of its dry run.
type migrationJSON struct {
	DryRun bool     `json:"dry_run"`
	From   uint64   `json:"from"`
	To     uint64   `json:"to"`
	Steps  []string `json:"steps"`
	Copy   string   `json:"copy,omitempty"`
}

func migrateState(c *cli.Context) error {
	f, err := foldersOf(c)
	if err != nil {
		return err
	}
	dry := c.Bool(dryRunFlag)
	p := render.StartProgress(c.App.ErrWriter, "migrating the state")
	var out store.Migration
	if dry {
		out, err = rehearse(c.Context, f, p)
	} else {
		out, err = store.Migrate(f.state)
	}
	p.End()
	if err != nil {
		return stateless(f, err)
	}
	w := c.App.Writer
	if c.Bool(jsonFlag) {
		result := migrationJSON{DryRun: dry, From: out.From, To: out.To, Steps: out.Steps, Copy: out.Copy}
		if result.Steps == nil {
			result.Steps = []string{}
		}
		return render.JSON(w, result)
	}
	if out.From == out.To {
		_, err = fmt.Fprintf(w, "schema version %d is current: nothing to do\n", out.From)
		return err
	}
	what := "the state was"
	if dry {
		what = "nothing was changed; a copy could be"
	}
	fmt.Fprintf(w, "%s migrated from schema version %d to %d:\n", what, out.From, out.To)
	for i, step := range out.Steps {
		fmt.Fprintf(w, "  to %d: %s\n", out.From+uint64(i)+1, step)
	}
	if out.Copy != "" {
		_, err = fmt.Fprintf(w, "the state before is kept as %s\n", out.Copy)
	}
	return err
}

// rehearse migrates a temporary copy of the state.
func rehearse(ctx context.Context, f folders, p *render.Progress) (_ store.Migration, err error) {
	dir, err := os.MkdirTemp("", "hsu-master-migration-")
	if err != nil {
		return store.Migration{}, fmt.Errorf("rehearse the migration: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	temp, err := os.OpenFile(filepath.Join(dir, "copy.db"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return store.Migration{}, fmt.Errorf("rehearse the migration: %w", err)
	}
	_, err = copyState(ctx, f, temp, p)
	if err = errors.Join(err, temp.Close()); err != nil {
		return store.Migration{}, err
	}
	return store.RehearseMigration(temp.Name())
}
