package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/terminal"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/top"
)

// Flags of top.
const (
	countFlag    = "count"
	intervalFlag = "interval"
	sortFlag     = "sort"
)

// shortestInterval is that of the master's readings.
const shortestInterval = time.Second

func topCommand() *cli.Command {
	cmd := leaf("top", "show what the workers use, again and again", showTop,
		&cli.IntFlag{Name: countFlag, Aliases: []string{"n"}, Usage: "`N` tables, then end; 0 goes on"},
		&cli.DurationFlag{Name: intervalFlag, Value: 2 * time.Second, Usage: "`DURATION` between two tables, 1s to 1h"},
		&cli.StringFlag{
			Name: sortFlag, Value: top.ByCPU,
			Usage: "`ORDER` of the workers: " + strings.Join(top.Orders, ", "),
		},
		&cli.BoolFlag{Name: jsonFlag, Usage: "print a JSON object for each table, on one line"})
	cmd.Description = `Keys: c, m, r, s and n sort by CPU, memory, restarts, calls a second and
name, the arrows scroll, q ends. It goes on when the master is restarted. To a
file it prints one table, with all workers, or as many as --count says.`
	return cmd
}

func showTop(c *cli.Context) error {
	f, err := foldersOf(c)
	if err != nil {
		return err
	}
	o := top.Options{
		Out: c.App.Writer, JSON: c.Bool(jsonFlag), Tables: c.Int(countFlag), Interval: c.Duration(intervalFlag),
		Order: c.String(sortFlag), Colour: os.Getenv("NO_COLOR") == "",
	}
	switch {
	case o.Tables < 0:
		return exit.Usagef("--%s %d: must be 0 or more", countFlag, o.Tables)
	case o.Interval < shortestInterval || o.Interval > time.Hour:
		return exit.Usagef("--%s %s: must be 1s to 1h", intervalFlag, o.Interval)
	case !slices.Contains(top.Orders, o.Order):
		return exit.Usagef("--%s %q: must be one of %s", sortFlag, o.Order, strings.Join(top.Orders, ", "))
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	asker := &workerAsker{folders: f}
	defer asker.hangUp()
	o.Ask = asker.ask
	if _, err := liveState(ctx, f); err != nil { // also for a folder that is a copy
		if errors.Is(err, exit.ErrNoMaster) {
			return exit.Hint(err, `start one with "hsu-master run", or name its --state-dir`)
		}
		return err
	}
	if !o.JSON && os.Getenv("TERM") != "dumb" { // which cannot move its cursor
		if o.Terminal, err = terminal.Open(c.App.Writer); err != nil {
			return err
		}
	}
	if o.Terminal != nil {
		defer o.Terminal.Close()
	}
	return top.Run(ctx, o)
}

// workerAsker asks the running master for its workers, over one connection as long as that works.
type workerAsker struct {
	folders folders
	conn    *grpc.ClientConn
}

func (a *workerAsker) ask(ctx context.Context) ([]*adminpb.Worker, error) {
	if a.conn == nil {
		conn, err := dialAdmin(ctx, a.folders)
		if err != nil {
			return nil, err
		}
		a.conn = conn
	}
	resp, err := adminpb.NewAdminClient(a.conn).ListWorkers(ctx, &adminpb.ListWorkersRequest{})
	if err != nil {
		a.hangUp()
	}
	return resp.GetWorkers(), err
}

func (a *workerAsker) hangUp() {
	if a.conn != nil {
		_ = a.conn.Close()
		a.conn = nil
	}
}
