package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/store"
)

func restoreCommand() *cli.Command {
	cmd := leafOf("restore", "replace the state with a backup; the replaced state is kept aside",
		"FILE", true, restoreState,
		&cli.StringFlag{
			Name: "count", Value: "larger",
			Usage: "`COUNT` count of requests to continue from: larger (the larger one of the state and the backup), " +
				"or backup",
		},
		&cli.BoolFlag{Name: "incomplete", Usage: "accept a backup with unreadable records"},
		jsonOutput())
	cmd.Description = `Fails if a master is running (exit 4), or if FILE is damaged (exit 5); then
nothing is changed.

The next start finds running workers that the backup does not contain. It adopts
them if their slot is free, and otherwise stops them.`
	return cmd
}

// restoredJSON is the result of a restore.
type restoredJSON struct {
	Backup      summaryJSON `json:"backup"`
	Replaced    string      `json:"replaced,omitempty"`
	CountBefore *int64      `json:"processed_count_before"` // null if it is not known
	Count       int64       `json:"processed_count"`
	CountShort  *time.Time  `json:"count_may_be_short_since,omitempty"`
	Foreign     bool        `json:"of_another_master"`
	Elsewhere   bool        `json:"of_another_folder"`
}

func restoreState(c *cli.Context, file string) error {
	f, err := foldersOf(c)
	if err != nil {
		return err
	}
	which := c.String("count")
	if which != "larger" && which != "backup" {
		return exit.Usagef("--count %q: must be one of larger, backup", which)
	}
	p := render.StartProgress(c.App.ErrWriter, "restoring the state")
	out, err := store.Restore(f.state, file, store.RestoreOptions{
		CountOfBackup: which == "backup", Incomplete: c.Bool("incomplete"),
	})
	p.End()
	if err != nil {
		return err
	}
	if c.Bool(jsonFlag) {
		result := restoredJSON{
			Backup: summaryToJSON(out.Backup, ""), Replaced: out.Replaced, Count: out.Count,
			CountShort: given(out.CountShortSince), Foreign: out.Foreign, Elsewhere: out.Elsewhere,
		}
		if out.CountBefore >= 0 {
			result.CountBefore = &out.CountBefore
		}
		return render.JSON(c.App.Writer, result)
	}
	w := c.App.Writer
	asOf := ""
	if !out.Backup.AsOf.IsZero() {
		asOf = " of " + out.Backup.AsOf.Local().Format(time.RFC3339)
	}
	fmt.Fprintf(w, "restored %s%s: schema version %d, %s\n",
		out.Backup.Path, asOf, out.Backup.SchemaVersion, render.Count(out.Backup.Workers, "worker"))
	if out.Replaced != "" {
		fmt.Fprintf(w, "the state before is kept as %s\n", out.Replaced)
	}
	before := "is not known"
	if out.CountBefore >= 0 {
		before = fmt.Sprintf("was %d", out.CountBefore)
	}
	fmt.Fprintf(w, "processed count: %d%s; it %s, and %d in the backup\n",
		out.Count, shortClause(out.CountShortSince), before, out.Backup.Processed)
	if out.Count > out.Backup.Processed {
		fmt.Fprintf(w, "to go on from the backup's: restore with --count backup\n")
	}
	if out.Foreign {
		fmt.Fprintf(w, "the backup is of another master (%s): this state keeps its own id\n", out.Backup.MasterID)
	}
	if out.Elsewhere {
		fmt.Fprintf(w, "it was made in another folder: processes that it names are left alone\n")
	}
	_, err = fmt.Fprintln(w,
		`workers that live and are not in it: the next start adopts them where their place is free, else stops them`)
	return err
}
