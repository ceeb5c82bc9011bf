package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/recovery"
)

func planCommand() *cli.Command {
	flags := append([]cli.Flag{jsonOutput(), &cli.BoolFlag{
		Name:  "verbose",
		Usage: "print the evidence of all workers, also of those that are simply adopted",
	}}, runFlags()...)
	cmd := leaf("plan", "show what the next start would do to each worker", showPlan, flags...)
	cmd.Description = `Accepts the flags of run and decides as run with these flags would. Without
--config and --worker-path the recorded workers are the wanted ones, unless
--worker-count is 0. If a master is running, the plan is for a start after that
master was killed.

The command only reads records and inspects processes: it sends no signal,
changes nothing, and sends no health check. Run it as root or as the user of the
master.

Actions:
  adopt            keep the running worker
  adopt-unhealthy  keep the running worker, without sending it requests
  start            start the worker for the first time
  respawn          start the worker again
  wait             start the worker again after its backoff
  stop             stop the worker
  forget           delete the record of a surplus worker without a process
  fail             leave the worker: its restart budget is used up
  keep-failed      leave the worker failed, until it is tried again
  keep-completed   leave the worker completed
  keep-stopped     leave the worker stopped
  keep-scheduled   leave the worker until its next due time
  run              run the worker for a due time that was missed
  hold             the process cannot be verified: try again later
  sweep-stray      stop a process of this master that is no worker
  watch            watch the process of an unmanaged unit, and search for it`
	return cmd
}

func showPlan(c *cli.Context) error {
	cfg, err := configOf(c, workersMayLive)
	if err != nil {
		return err
	}
	p, err := makePlan(c.Context, cfg)
	if err != nil {
		return err
	}
	if c.Bool(jsonFlag) {
		return render.JSON(c.App.Writer, p)
	}
	return p.print(c.App.Writer, c.Bool("verbose"))
}

// plan is the output of "state plan". Scripts depend on its JSON.
type plan struct {
	Workers    []recovery.Decision `json:"workers"`
	Source     string              `json:"source"` // "live" or "offline"
	MasterPID  int32               `json:"master_pid"`
	Wanted     string              `json:"wanted"`           // "flags", also for a file, or "recorded"
	Lost       string              `json:"lost,omitempty"`   // why state.db cannot be used
	Backup     string              `json:"backup,omitempty"` // the backup that is used instead
	BadRecords map[string]string   `json:"bad_records,omitempty"`
	KeyFault   string              `json:"key_fault,omitempty"` // why environments cannot be compared

	unitFault error
	first     bool // there is no state yet
}

// noUnitsGiven reports whether neither flags nor a file describe the wanted units. A file may want none, and so does
// --worker-count 0.
func (cfg config) noUnitsGiven() bool {
	return len(cfg.Master.Units) == 0 && cfg.Master.ReadUnits == nil && !cfg.noWorkers
}

// The values of plan.Wanted.
const (
	wantedFlags    = "flags"
	wantedRecorded = "recorded"
)

func makePlan(ctx context.Context, cfg config) (plan, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	next, masterPID, err := readNextStart(ctx, cfg)
	first := errors.Is(err, fs.ErrNotExist) && !cfg.noUnitsGiven()
	if err != nil && !first {
		return plan{}, offline(cfg.folders, err)
	}
	p := plan{
		Source: api.SourceOffline, MasterPID: masterPID, Wanted: wantedFlags, Backup: next.Backup,
		unitFault: cfg.UnitFault, first: first,
	}
	if masterPID != 0 {
		p.Source = api.SourceLive
	}
	if cfg.noUnitsGiven() {
		p.Wanted = wantedRecorded
	}
	if damaged, ok := errors.AsType[*store.DamagedError](next.Lost); ok {
		p.Lost = damaged.Err.Error()
	} else if next.Lost != nil {
		p.Lost = next.Lost.Error()
	}
	for key, err := range next.Bad {
		if p.BadRecords == nil {
			p.BadRecords = map[string]string{}
		}
		p.BadRecords[key] = err.Error()
	}
	secrets, err := store.ReadSecretKey(cfg.folders.state)
	if err != nil {
		p.KeyFault = err.Error()
	}
	opts := recovery.PlanOptions{
		Snapshot: next.Snapshot, StateDir: cfg.folders.state, RuntimeDir: cfg.folders.liveRuntime(),
		AsRecorded: p.Wanted == wantedRecorded, Secrets: secrets,
	}
	if first {
		opts.StateDir = ""
	}
	p.Workers, err = recovery.Plan(ctx, opts, cfg.Master.Units...)
	if err != nil {
		return plan{}, fmt.Errorf("plan the next start: %w", err)
	}
	return p, nil
}

// readNextStart returns the state that the next start will read. It comes from the running master, whose PID is
// returned too, or from the state files if no master runs.
func readNextStart(ctx context.Context, cfg config) (store.NextStart, int32, error) {
	state, err := liveState(ctx, cfg.folders)
	if err == nil {
		var next store.NextStart
		if next.Snapshot, err = liveSnapshot(ctx, cfg.folders); err == nil {
			return next, state.GetMasterPid(), nil
		}
	}
	if !errors.Is(err, exit.ErrNoMaster) {
		return store.NextStart{}, 0, err
	}
	next, err := store.ReadNextStart(cfg.folders.state, store.Options{
		OnDamage: cfg.Master.OnDamage,
		LostID: func() (string, error) {
			return recovery.LivingMasterID(ctx, cfg.folders.state, cfg.folders.liveRuntime())
		},
	})
	return next, 0, err
}

// liveSnapshot returns the state of the running master as it is in its database.
func liveSnapshot(ctx context.Context, f folders) (records.Snapshot, error) {
	conn, err := dialAdmin(ctx, f)
	if err != nil {
		return records.Snapshot{}, err
	}
	defer func() { _ = conn.Close() }()
	var database bytes.Buffer
	stream, err := adminpb.NewAdminClient(conn).Backup(ctx, &adminpb.BackupRequest{})
	for err == nil {
		var piece *adminpb.BackupResponse
		if piece, err = stream.Recv(); err == nil {
			database.Write(piece.GetData())
		}
	}
	if !errors.Is(err, io.EOF) {
		if gone(ctx, f) {
			return records.Snapshot{}, fmt.Errorf("%w at %s any more", exit.ErrNoMaster, f.liveSocket())
		}
		return records.Snapshot{}, fmt.Errorf("ask the master for its state: %s", status.Convert(err).Message())
	}
	return store.ReadBackup(bytes.NewReader(database.Bytes()), int64(database.Len()))
}

// liveRuntime returns the runtime folder of the running master, or of the last one if it did not clean up. Leases
// are in this folder.
func (f folders) liveRuntime() string { return filepath.Dir(f.liveSocket()) }

func (p plan) print(w io.Writer, verbose bool) error {
	fmt.Fprintln(w, render.OnTerminal(w, p.headline()))
	if p.unitFault != nil {
		for fault := range strings.SplitSeq(p.unitFault.Error(), "\n") {
			fmt.Fprintf(w, "cannot be started: %s\n", render.Printable(fault))
		}
	}
	if p.KeyFault != "" {
		fmt.Fprintf(w, "a master cannot start, and environments cannot be compared: %s\n", render.Printable(p.KeyFault))
	}
	if len(p.Workers) == 0 {
		fmt.Fprintln(w, "\nnothing: no worker is wanted or recorded, and no process of this master lives")
	} else {
		fmt.Fprintln(w)
		table := render.NewTable("WORKER", "ACTION", "PID", "PORT", "REASON")
		for _, d := range p.Workers {
			table.Row(render.Printable(d.ID), string(d.Action), livingPID(d.Evidence), portNumber(d.Evidence),
				render.Printable(d.Reason))
		}
		if err := table.Print(w); err != nil {
			return err
		}
	}
	for _, d := range p.Workers {
		if verbose || !isPlain(d) {
			printEvidence(w, d)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(p.BadRecords)) {
		fmt.Fprintf(w, "\nrecord %s is not readable: %s\n", render.Printable(key), render.Printable(p.BadRecords[key]))
	}
	return nil
}

// isPlain reports whether the decision needs no evidence: the process stays, and is what its unit describes, or there
// has been none.
func isPlain(d recovery.Decision) bool {
	e := d.Evidence
	if d.Action == recovery.ActionStart || d.Action == recovery.ActionKeepScheduled {
		return e.Recorded == nil && e.Found == nil && len(e.Left)+len(e.Others)+len(e.Commands) == 0 &&
			(e.Port == nil || e.Port.Owner == "free")
	}
	return (d.Action == recovery.ActionAdopt || d.Action == recovery.ActionWatch) && !e.Outdated && !e.Incomparable
}

// headline describes the assumptions of the plan.
func (p plan) headline() string {
	var said []string
	switch {
	case p.MasterPID != 0:
		said = append(said, fmt.Sprintf("if the running master (pid %d) were killed and started again", p.MasterPID))
	case p.first:
		said = append(said, "no master has run in this state directory; the first start")
	case p.Lost == "":
		said = append(said, "no master is running; the next start")
	case p.Backup == "":
		said = append(said,
			fmt.Sprintf("state.db cannot be used (%s), and there is no backup; the next start",
				render.Printable(p.Lost)))
	default:
		said = append(said, fmt.Sprintf("state.db cannot be used (%s); the next start, from %s",
			render.Printable(p.Lost), render.Printable(p.Backup)))
	}
	if p.Wanted == wantedRecorded {
		said = append(said,
			"with every recorded worker taken as wanted, as neither --config nor --worker-path is given")
	}
	return strings.Join(said, ", ") + ":"
}

func livingPID(e recovery.Evidence) string {
	if e.Found != nil {
		switch e.Found.State {
		case recovery.FoundAlive, recovery.FoundSuspended, recovery.FoundUnverifiable:
			return render.Number(int32(e.Found.PID)) //nolint:gosec // a PID fits, see pid_max
		case recovery.FoundEnded, recovery.FoundGone, recovery.FoundReused, recovery.FoundNothing:
		}
	}
	return "-"
}

func portNumber(e recovery.Evidence) string {
	if e.Port == nil {
		return "-"
	}
	return render.Number(int32(e.Port.Port)) //nolint:gosec // a port fits
}

// printEvidence prints the evidence for a decision, one line per source.
func printEvidence(w io.Writer, d recovery.Decision) {
	fmt.Fprintf(w, "\n%s: %s\n", render.Printable(d.ID), d.Action)
	line := func(source string, parts ...string) {
		said := slices.DeleteFunc(parts, func(part string) bool { return part == "" })
		fmt.Fprintf(w, "  %-9s %s\n", source, render.Printable(strings.Join(said, ", ")))
	}
	e := d.Evidence
	if r := e.Recorded; r == nil {
		line("recorded", "nothing")
	} else {
		line("recorded", string(r.Status), when(r.Desired == records.DesiredStopped, "wanted stopped"),
			when(r.PID != 0, fmt.Sprintf("pid %d", r.PID)), when(r.Token != "" && r.PID == 0, "no pid yet"),
			when(r.Inode != 0, fmt.Sprintf("inode %d", r.Inode)),
			when(r.StartTicks != 0, fmt.Sprintf("start tick %d", r.StartTicks)),
			when(r.Proof != identity.ProofNone, "proof "+string(r.Proof)), when(r.Token != "", "token "+r.Token),
			when(r.Lease != "", "lease "+r.Lease), when(e.OtherBoot, "of another boot"),
			when(e.Moved, "of another state directory"))
	}
	if f := e.Found; f != nil {
		line("found", foundParts(*f)...)
	}
	for _, f := range e.Left {
		line("left", foundParts(f)...)
	}
	for _, f := range e.Others {
		line("another", foundParts(f)...)
	}
	if e.Lease != "" {
		line("lease", e.Lease)
	}
	for _, f := range e.Commands {
		line("command", foundParts(f)...)
	}
	for _, h := range e.Hooks {
		line("hook", h.Hook, "lease "+h.Lease)
	}
	if e.Port != nil {
		line("port", fmt.Sprintf("%d is %s", e.Port.Port, portOwners[e.Port.Owner]))
	}
	if e.Incomparable {
		line("outdated", recovery.KeyLost+"; it stays as it is")
	} else if e.Outdated && e.Rollout == "" {
		line("outdated", "its executable or its unit has changed since it was started; it stays until a reload")
	}
}

// portOwners maps the owner of a port to its description in the output.
var portOwners = map[string]string{
	"ours":    "the worker's",
	"free":    "free",
	"foreign": "held by another process",
	"unknown": "held by a process that cannot be told",
}

func foundParts(f recovery.Found) []string {
	return []string{
		map[recovery.FoundState]string{
			recovery.FoundAlive:        "alive",
			recovery.FoundSuspended:    "alive, stopped by a signal",
			recovery.FoundEnded:        "ended, not reaped",
			recovery.FoundGone:         "gone",
			recovery.FoundReused:       "its pid is another process's",
			recovery.FoundUnverifiable: "not to be verified",
			recovery.FoundNothing:      "no process shows the token",
		}[f.State],
		when(f.PID != 0, fmt.Sprintf("pid %d", f.PID)), when(f.Inode != 0, fmt.Sprintf("inode %d", f.Inode)),
		when(f.StartTicks != 0, fmt.Sprintf("start tick %d", f.StartTicks)), when(f.TokenSeen, "shows its token"),
		when(f.SessionLeader, "leads its session"), f.Exit,
	}
}

func when(so bool, text string) string {
	if so {
		return text
	}
	return ""
}
