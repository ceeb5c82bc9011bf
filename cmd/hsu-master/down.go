package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/process"
)

func downCommand() *cli.Command {
	cmd := leaf("down", "stop the workers and the master",
		func(c *cli.Context) error { return shutdown(c, false) }, shutdownFlags()...)
	cmd.Description = `Calls in flight end first, within the graces of the workers. Each worker is
stopped, and the master ends. The workers stay wanted: the next master starts
them. TERM does the same.

` + shutdownEnd
	return cmd
}

func detachCommand() *cli.Command {
	cmd := leaf("detach", "end the master and leave the workers running",
		func(c *cli.Context) error { return shutdown(c, true) }, shutdownFlags()...)
	cmd.Description = `Calls in flight end first, within --stop-grace of the master. The next master
adopts the workers. USR1 does the same.

` + shutdownEnd
	return cmd
}

// shutdownEnd is the end of the descriptions of both commands.
const shutdownEnd = `A master that systemd runs as a service is not ended, because systemd would
start it again: the error names the command of systemctl.

Exit codes: 0 done, 1 not done, or not within the timeout, 3 no master is
running.`

func shutdownFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: noWaitFlag, Usage: "return when the master has begun to end"},
		&cli.DurationFlag{
			Name: "timeout", Value: time.Minute,
			Usage: "`DURATION` to wait for the end; the master goes on after it",
		},
		jsonOutput(),
	}
}

// shutdownJSON is the output of "down --json" and "detach --json". Scripts depend on it.
type shutdownJSON struct {
	MasterPID int32    `json:"master_pid"`
	Detached  bool     `json:"detached"`
	Ended     bool     `json:"ended"`
	Workers   []string `json:"workers"` // that had a process when it began
}

func shutdown(c *cli.Context, detach bool) error {
	limit, err := timeoutOf(c)
	if err != nil {
		return err
	}
	f, err := foldersOf(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, limit)
	defer cancel()
	conn, err := dialRegistry(ctx, f)
	if errors.Is(err, exit.ErrNoMaster) {
		return exit.Hint(err,
			`"hsu-master worker list" shows the workers that may be left; the next master adopts them`)
	}
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	master := openMaster(ctx, f)
	defer master.close()
	stream, err := adminpb.NewAdminClient(conn).Shutdown(ctx, &adminpb.ShutdownRequest{Detach: detach})
	if err != nil {
		return shutdownError(err, nil, detach)
	}
	first, err := stream.Recv()
	if status.Code(err) == codes.Unavailable { // it has ended, and may have got the command before
		first, err = &adminpb.ShutdownResponse{MasterPid: master.pid()}, nil
	}
	if err != nil || first.GetService() != "" {
		if err == nil {
			_, err = stream.Recv()
		}
		return shutdownError(err, first, detach)
	}
	if !c.Bool(noWaitFlag) {
		waiting := render.StartProgress(c.App.ErrWriter, "waiting for the end of the master")
		err = awaitShutdown(ctx, f, stream, master, first, waiting)
		waiting.End()
		if err != nil {
			return err
		}
	}
	return printShutdown(c, first, detach)
}

func printShutdown(c *cli.Context, first *adminpb.ShutdownResponse, detach bool) error {
	ended := !c.Bool(noWaitFlag)
	if c.Bool(jsonFlag) {
		return render.JSON(c.App.Writer, shutdownJSON{
			first.GetMasterPid(), detach, ended, append([]string{}, first.GetWorkers()...),
		})
	}
	master, workers := "has ended", "stopped"
	if !ended {
		master, workers = "is ending", "being stopped"
	}
	if detach {
		workers = "left running"
	}
	fmt.Fprintf(c.App.Writer, "master %s (pid %d), %s %s\n",
		master, first.GetMasterPid(), render.Count(len(first.GetWorkers()), "worker"), workers)
	return nil
}

// awaitShutdown returns when the master has ended, with an error if that was not in time, or not in order.
func awaitShutdown(ctx context.Context, f folders, stream shutdownStream, master runningMaster,
	last *adminpb.ShutdownResponse, p *render.Progress,
) error {
	var err error
	for err == nil {
		text := shutdownText(last)
		p.Detail.Store(&text)
		var next *adminpb.ShutdownResponse
		if next, err = stream.Recv(); err == nil {
			last = next
		}
	}
	var left error
	if status.Code(err) == codes.Aborted {
		left = exit.Hint(errors.New(render.Printable(status.Convert(err).Message())),
			`end these processes by hand, or start the master again: it goes on with them`)
	}
	if !master.awaitEnd(ctx, f) {
		text := shutdownText(last)
		if text != "" {
			text = ": it waits for " + text
		}
		return exit.Hint(fmt.Errorf("the master has not ended in time, it goes on ending%s", text),
			`run the command again to wait longer`)
	}
	if left != nil {
		return left
	}
	// An orderly end is recorded. If another master has started since, it has recovered the workers.
	snap, err := store.ReadSnapshot(f.state)
	if err == nil && !snap.Meta.CleanShutdown {
		return exit.Hint(errors.New("the master crashed before it was done"),
			`start it again with "hsu-master run", and repeat the command`)
	}
	return nil
}

// shutdownText names the workers and calls that a shutdown waits for, "" for none.
func shutdownText(r *adminpb.ShutdownResponse) string {
	var parts []string
	if n := int(r.GetCalls()); n > 0 {
		parts = append(parts, render.Count(n, "call"))
	}
	if ids := r.GetWorkers(); len(ids) > 0 {
		parts = append(parts, render.Printable(strings.Join(ids, ", ")))
	}
	return strings.Join(parts, ", ")
}

// shutdownStream is the stream of responses.
type shutdownStream interface {
	Recv() (*adminpb.ShutdownResponse, error)
}

// shutdownError returns the error for a shutdown that was not begun. first is the response before it, nil if there was
// none.
func shutdownError(err error, first *adminpb.ShutdownResponse, detach bool) error {
	said := errors.New(render.Printable(status.Convert(err).Message()))
	switch status.Code(err) {
	case codes.Unimplemented:
		return exit.Hint(errors.New("the running master is of an older release"),
			"send it TERM to stop everything, USR1 to leave the workers running")
	case codes.DeadlineExceeded:
		return exit.Hint(errors.New("the master does not answer in time"), "see its log")
	case codes.FailedPrecondition:
		if unit := first.GetService(); unit != "" {
			return exit.Hint(said, "%s", systemctlFor(render.Printable(unit), first.GetUserService(), detach))
		}
		return exit.Hint(said, `see "hsu-master status"`)
	default:
		return fmt.Errorf("ask the master: %w", said)
	}
}

// systemctlFor returns the command of systemctl in place of down or detach.
func systemctlFor(unit string, user, detach bool) string {
	systemctl := "systemctl"
	if user {
		systemctl += " --user"
	}
	if detach {
		return fmt.Sprintf(`"%s kill --kill-whom=main --signal=USR1 %s" leaves the workers running, and systemd `+
			`starts the next master, which adopts them`, systemctl, unit)
	}
	return fmt.Sprintf(`"%s stop %s" stops the workers and the master`, systemctl, unit)
}

// runningMaster is the process of a master, nil if it cannot be opened.
type runningMaster struct{ *process.Process }

// openMaster opens the process that listens on the admin socket.
func openMaster(ctx context.Context, f folders) runningMaster {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", f.liveSocket())
	if err != nil {
		return runningMaster{}
	}
	defer func() { _ = conn.Close() }()
	unixConn, _ := conn.(*net.UnixConn)
	listening, err := process.ConnectorOf(unixConn)
	if err != nil {
		return runningMaster{}
	}
	p, err := listening.Open()
	if err != nil {
		return runningMaster{}
	}
	return runningMaster{p}
}

// pid returns 0 if the process is not known.
func (m runningMaster) pid() int32 {
	if m.Process == nil {
		return 0
	}
	return int32(m.PID()) //nolint:gosec // a PID fits in 32 bits: see pid_max
}

func (m runningMaster) close() {
	if m.Process != nil {
		_ = m.Close()
	}
}

// awaitEnd returns when the process has ended, or no master holds the state if the process is not known. It returns
// false when ctx ends before that.
func (m runningMaster) awaitEnd(ctx context.Context, f folders) bool {
	if m.Process != nil {
		select {
		case <-m.Done():
			return true
		case <-ctx.Done():
			return false
		}
	}
	for store.Holder(f.state) != nil {
		select {
		case <-time.After(startingPoll):
		case <-ctx.Done():
			return false
		}
	}
	return true
}
