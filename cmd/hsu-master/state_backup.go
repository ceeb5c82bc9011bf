package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/terminal"
	"github.com/core-tools/hsu-master/store"
)

// backupWithin bounds the backup of a running master's state.
const backupWithin = 2 * time.Minute

const forceFlag = "force"

func backupCommand() *cli.Command {
	cmd := leafOf("backup", "back up the state to a file",
		"FILE", true, backupState,
		&cli.BoolFlag{Name: forceFlag, Usage: "replace FILE if it exists"}, jsonOutput())
	cmd.Description = `The backup is checked before it gets the name FILE, and has mode 0600. With - as
FILE it goes to standard output. "hsu-master state restore" restores it.`
	return cmd
}

// summaryJSON is the summary of a database.
type summaryJSON struct {
	File           string     `json:"file"`
	Source         string     `json:"source,omitempty"`
	Bytes          int64      `json:"bytes"`
	SchemaVersion  uint64     `json:"schema_version"`
	Sequence       uint64     `json:"sequence"`
	MasterID       string     `json:"master_id"`
	ProcessedCount int64      `json:"processed_count"`
	CountShort     *time.Time `json:"count_may_be_short_since,omitempty"`
	AsOf           *time.Time `json:"as_of,omitempty"`
	Workers        int        `json:"workers"`
	Events         int        `json:"events"`
	BadRecords     int        `json:"bad_records,omitempty"`
}

func summaryToJSON(s store.Summary, source string) summaryJSON {
	return summaryJSON{
		File: s.Path, Source: source, Bytes: s.Size, SchemaVersion: s.SchemaVersion,
		Sequence: s.Sequence, MasterID: s.MasterID,
		ProcessedCount: s.Processed, CountShort: given(s.CountShortSince), AsOf: given(s.AsOf),
		Workers: s.Workers, Events: s.Events, BadRecords: s.Bad,
	}
}

// given returns t in local time, or nil if t is zero.
func given(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	local := t.Local()
	return &local
}

// shortClause returns a remark that a count may be too low since a time, or "" if the time is zero.
func shortClause(since time.Time) string {
	if since.IsZero() {
		return ""
	}
	return fmt.Sprintf(" (may be short since %s)", since.Local().Format(time.RFC3339))
}

func backupState(c *cli.Context, file string) error {
	f, err := foldersOf(c)
	if err != nil {
		return err
	}
	var source string
	write := func(dst *os.File) error {
		p := render.StartProgress(c.App.ErrWriter, "copying the state")
		defer p.End()
		source, err = copyState(c.Context, f, dst, p)
		return err
	}
	if file == "-" {
		switch {
		case c.Bool(jsonFlag):
			return exit.Usagef("--json and - both write to standard output: name a FILE")
		case terminal.Is(c.App.Writer):
			return exit.Usagef("a backup is binary data: name a FILE, or redirect standard output")
		}
		_, err := store.StreamBackup(c.App.Writer, write)
		return err
	}
	if isIn(file, f.state) {
		return exit.Usagef("%s is in the state directory: name a FILE elsewhere", file)
	}
	sum, err := store.SaveBackup(file, c.Bool(forceFlag), write)
	if errors.Is(err, store.ErrExists) {
		return exit.Hint(err, "name another FILE, or replace it with --%s", forceFlag)
	}
	if err != nil {
		return err
	}
	if c.Bool(jsonFlag) {
		return render.JSON(c.App.Writer, summaryToJSON(sum, source))
	}
	_, err = fmt.Fprintf(c.App.Writer, "wrote %s: %d bytes, schema version %d, %s, %d requests processed%s\n",
		sum.Path, sum.Size, sum.SchemaVersion, render.Count(sum.Workers, "worker"), sum.Processed,
		shortClause(sum.CountShortSince))
	return err
}

// isIn reports whether a file is, or would be, directly in the folder.
func isIn(file, dir string) bool {
	one, err1 := os.Stat(filepath.Dir(file))
	other, err2 := os.Stat(dir)
	return err1 == nil && err2 == nil && os.SameFile(one, other)
}

// copyState writes a copy of the state to dst, from the running master or, if none runs, from the state files. It
// returns which of the two.
func copyState(ctx context.Context, f folders, dst *os.File, p *render.Progress) (source string, err error) {
	err = fetchState(ctx, f, dst, p)
	switch {
	case err == nil:
		return api.SourceLive, nil
	case !errors.Is(err, exit.ErrNoMaster):
		return "", err
	}
	return api.SourceOffline, offline(f, store.Export(f.state, dst))
}

// fetchState writes the running master's state to w. It returns exit.ErrNoMaster if no master runs.
func fetchState(ctx context.Context, f folders, w io.Writer, p *render.Progress) error {
	// First check, with a short timeout, that the master answers and uses this folder.
	first, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	if _, err := liveState(first, f); err != nil {
		return err
	}
	ctx, cancel = context.WithTimeout(ctx, backupWithin)
	defer cancel()
	conn, err := dialAdmin(ctx, f)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	stream, err := adminpb.NewAdminClient(conn).Backup(ctx, &adminpb.BackupRequest{})
	for err == nil {
		var piece *adminpb.BackupResponse
		if piece, err = stream.Recv(); err != nil {
			break
		}
		if _, err := w.Write(piece.GetData()); err != nil {
			return fmt.Errorf("write the backup: %w", err)
		}
		p.Total.Store(piece.GetSize())
		p.Done.Add(int64(len(piece.GetData())))
	}
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case status.Code(err) == codes.Unimplemented:
		return exit.Hint(errors.New("the running master is of an older release, which makes no backups"),
			"stop it, then try again")
	case gone(ctx, f):
		return exit.Hint(errors.New("the master has ended"), "try again")
	}
	return fmt.Errorf("ask the master for a backup: %s", status.Convert(err).Message())
}
