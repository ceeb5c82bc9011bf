package top

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/terminal"
)

// Options are the arguments of [Run]. Ask, Out, Interval and Order must be set.
type Options struct {
	Ask      func(context.Context) ([]*adminpb.Worker, error) // returns the workers of the running master
	Out      io.Writer
	Terminal *terminal.Terminal // nil if the output is none
	JSON     bool
	Interval time.Duration
	Tables   int    // to show; 0: no end
	Order    string // of Orders
	Colour   bool   // on a terminal
}

// Window is the time after which the master makes another reading.
const Window = 1100 * time.Millisecond

// longLine is the width of a table that is not for a terminal.
const longLine = 200

// The JSON output. Scripts depend on it.
type (
	// TableJSON is a line of "top --json".
	TableJSON struct {
		At      time.Time  `json:"at"`
		Workers []LoadJSON `json:"workers"`
	}
	// LoadJSON is the usage of a worker in a [TableJSON].
	LoadJSON struct {
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

// watcher asks the master again and again, and shows each answer.
type watcher struct {
	Options
	table       loadTable
	before, now sample
	list        []load
}

// Run shows a table at each interval. It returns nil when ctx is done, the last table is shown, or the user has had
// enough. Without a terminal, it shows one table if the number is 0.
func Run(ctx context.Context, o Options) error {
	w := watcher{Options: o, table: loadTable{width: render.PageWidth, order: o.Order, colour: o.Colour}}
	if w.Terminal == nil {
		w.table.width, w.table.colour = longLine, false
		w.Tables = max(1, w.Tables)
	}
	return w.run(ctx)
}

// run shows the tables: see Run.
func (w *watcher) run(ctx context.Context) error {
	w.ask(ctx)
	if !w.wait(ctx, Window, false) { // rates need two samples
		return nil
	}
	for {
		if w.ask(ctx); ctx.Err() != nil {
			return nil //nolint:nilerr // it was interrupted
		}
		if err := w.show(); err != nil {
			return err
		}
		if w.Tables == 1 {
			return nil
		}
		w.Tables = max(0, w.Tables-1)
		if !w.wait(ctx, w.Interval, true) {
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
	if w.Terminal != nil {
		keys, resized = w.Terminal.Keys, w.Terminal.Resized
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
			_ = w.Terminal.RawKeys() // a shell has changed it if the command was stopped
		}
		if draw && w.show() != nil {
			return false
		}
	}
}

// press handles a key and reports whether to go on. An arrow is three bytes, of which the last one decides.
func (w *watcher) press(key byte) bool {
	orders := map[byte]string{'c': ByCPU, 'm': byMemory, 'r': byRestarts, 's': byCalls, 'n': byName}
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
	ctx, cancel := context.WithTimeout(ctx, w.Interval)
	defer cancel()
	workers, err := w.Ask(ctx)
	if err != nil {
		w.table.note = render.MasterAway
		return
	}
	w.table.note = ""
	w.before, w.now = w.now, sample{time.Now(), workers}
	w.list = loads(w.before, w.now)
}

// show prints the table, on a terminal in place of the one before.
func (w *watcher) show() error {
	if w.JSON {
		return render.JSONLine(w.Out, loadsToJSON(w.now.at, w.list))
	}
	if w.Terminal == nil {
		_, err := fmt.Fprintln(w.Out, strings.Join(w.table.lines(w.list), "\n"))
		return err
	}
	w.table.width, w.table.height = w.Terminal.Size()
	_, err := fmt.Fprint(w.Out, "\x1b[H"+strings.Join(w.table.lines(w.list), "\x1b[K\n")+"\x1b[K\n\x1b[J")
	return err
}

func loadsToJSON(at time.Time, list []load) TableJSON {
	shown := TableJSON{At: at, Workers: make([]LoadJSON, 0, len(list))}
	for _, l := range list {
		item := LoadJSON{
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
