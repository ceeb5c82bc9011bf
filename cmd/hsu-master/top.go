package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/terminal"
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
	cmd := leaf("top", "show what the workers use, again and again", top,
		&cli.IntFlag{Name: countFlag, Aliases: []string{"n"}, Usage: "`N` tables, then end; 0 goes on"},
		&cli.DurationFlag{Name: intervalFlag, Value: 2 * time.Second, Usage: "`DURATION` between two tables, 1s to 1h"},
		&cli.StringFlag{
			Name: sortFlag, Value: byCPU,
			Usage: "`ORDER` of the workers: " + strings.Join(loadOrders, ", "),
		},
		&cli.BoolFlag{Name: jsonFlag, Usage: "print a JSON object for each table, on one line"})
	cmd.Description = `Keys: c, m, r, s and n sort by CPU, memory, restarts, calls a second and
name, the arrows scroll, q ends. It goes on when the master is restarted. To a
file it prints one table, with all workers, or as many as --count says.`
	return cmd
}

// topJSON is a line of "top --json".
type (
	topJSON struct {
		At      time.Time  `json:"at"`
		Workers []loadJSON `json:"workers"`
	}
	loadJSON struct {
		ID       string   `json:"id"`
		Status   string   `json:"status"`
		CPUShare *float64 `json:"cpu_share"` // 1 is a whole core
		Resident int64    `json:"resident"`  // bytes
		Restarts uint64   `json:"restarts"`
		Calls    float64  `json:"calls_per_second"`
		InFlight int64    `json:"in_flight"`
		P99      *float64 `json:"p99"` // seconds, an upper bound; null without calls, and above all bounds
	}
)

func top(c *cli.Context) error {
	f, err := foldersOf(c)
	if err != nil {
		return err
	}
	w := watcher{
		folders: f, out: c.App.Writer,
		json: c.Bool(jsonFlag), left: c.Int(countFlag), interval: c.Duration(intervalFlag),
		table: loadTable{width: render.PageWidth, order: c.String(sortFlag), colour: os.Getenv("NO_COLOR") == ""},
	}
	switch {
	case w.left < 0:
		return exit.Usagef("--%s %d: must be 0 or more", countFlag, w.left)
	case w.interval < shortestInterval || w.interval > time.Hour:
		return exit.Usagef("--%s %s: must be 1s to 1h", intervalFlag, w.interval)
	case !slices.Contains(loadOrders, w.table.order):
		return exit.Usagef("--%s %q: must be one of %s", sortFlag, w.table.order, strings.Join(loadOrders, ", "))
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer w.hangUp()
	if _, err := liveState(ctx, f); err != nil { // also for a folder that is a copy
		if errors.Is(err, exit.ErrNoMaster) {
			return exit.Hint(err, `start one with "hsu-master run", or name its --state-dir`)
		}
		return err
	}
	if !w.json && os.Getenv("TERM") != "dumb" { // which cannot move its cursor
		if w.terminal, err = terminal.Open(c.App.Writer); err != nil {
			return err
		}
	}
	if w.terminal != nil {
		defer w.terminal.Close()
	} else {
		w.table.width, w.table.colour = longLine, false
		w.left = max(1, w.left)
	}
	return w.run(ctx)
}

// longLine is the width of a table that is not for a terminal.
const longLine = 200

// watcher asks the master again and again, and shows each answer.
type watcher struct {
	folders  folders
	out      io.Writer
	terminal *terminal.Terminal // nil if the output is none
	json     bool
	interval time.Duration
	left     int // the tables to come; 0: no end
	table    loadTable

	conn        *grpc.ClientConn
	before, now sample
	list        []load
}

// run returns nil when ctx is done, the last table is shown, or the user has had enough.
func (w *watcher) run(ctx context.Context) error {
	w.ask(ctx)
	if !w.wait(ctx, usageWindow, false) { // rates need two samples
		return nil
	}
	for {
		if w.ask(ctx); ctx.Err() != nil {
			return nil //nolint:nilerr // it was interrupted
		}
		if err := w.show(); err != nil {
			return err
		}
		if w.left == 1 {
			return nil
		}
		w.left = max(0, w.left-1)
		if !w.wait(ctx, w.interval, true) {
			return nil
		}
	}
}

// wait returns true after the time. Meanwhile it handles keys and changes of the terminal's size, which it draws only
// after the first table. It returns false if ctx is done or the user has had enough.
func (w *watcher) wait(ctx context.Context, d time.Duration, draw bool) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	var keys chan byte
	var resized chan os.Signal
	if w.terminal != nil {
		keys, resized = w.terminal.Keys, w.terminal.Resized
	}
	for {
		select {
		case <-timer.C:
			return true
		case <-ctx.Done():
			return false
		case key := <-keys:
			if !w.press(key) {
				return false
			}
		case <-resized:
			_ = w.terminal.RawKeys() // a shell has changed it if the command was stopped
		}
		if draw && w.show() != nil {
			return false
		}
	}
}

// press handles a key and reports whether to go on. An arrow is three bytes, of which the last one decides.
func (w *watcher) press(key byte) bool {
	orders := map[byte]string{'c': byCPU, 'm': byMemory, 'r': byRestarts, 's': byCalls, 'n': byName}
	switch key {
	case 'q':
		return false
	case 'A', 'k': // up
		w.table.offset = max(0, w.table.offset-1)
	case 'B', 'j': // down
		w.table.offset = min(w.table.offset+1, max(0, len(w.list)-1))
	}
	if order := orders[key]; order != "" {
		w.table.order, w.table.offset = order, 0
	}
	return true
}

// ask gets another sample. Without a master, the last one stays, with a note.
func (w *watcher) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, w.interval)
	defer cancel()
	resp, err := w.listWorkers(ctx)
	if err != nil {
		w.hangUp()
		w.table.note = "no master answers any more; this goes on when one does"
		return
	}
	w.table.note = ""
	w.before, w.now = w.now, sample{time.Now(), resp.GetWorkers()}
	w.list = loads(w.before, w.now)
}

func (w *watcher) listWorkers(ctx context.Context) (*adminpb.ListWorkersResponse, error) {
	if w.conn == nil {
		conn, err := dialAdmin(ctx, w.folders)
		if err != nil {
			return nil, err
		}
		w.conn = conn
	}
	return adminpb.NewAdminClient(w.conn).ListWorkers(ctx, &adminpb.ListWorkersRequest{})
}

func (w *watcher) hangUp() {
	if w.conn != nil {
		_ = w.conn.Close()
		w.conn = nil
	}
}

// show prints the table, on a terminal in place of the one before.
func (w *watcher) show() error {
	if w.json {
		return render.JSONLine(w.out, loadsToJSON(w.now.at, w.list))
	}
	if w.terminal == nil {
		_, err := fmt.Fprintln(w.out, strings.Join(w.table.lines(w.list), "\n"))
		return err
	}
	w.table.width, w.table.height = w.terminal.Size()
	_, err := fmt.Fprint(w.out, "\x1b[H"+strings.Join(w.table.lines(w.list), "\x1b[K\n")+"\x1b[K\n\x1b[J")
	return err
}

func loadsToJSON(at time.Time, list []load) topJSON {
	shown := topJSON{At: at, Workers: make([]loadJSON, 0, len(list))}
	for _, l := range list {
		item := loadJSON{
			ID: l.id, Status: l.status, CPUShare: l.cpu, Resident: l.resident, Restarts: l.restarts,
			Calls: l.calls, InFlight: l.inFlight,
		}
		if l.p99 > 0 {
			item.P99 = new(l.p99.Seconds())
		}
		shown.Workers = append(shown.Workers, item)
	}
	return shown
}
