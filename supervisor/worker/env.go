package worker

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/logs/rotate"
	"github.com/core-tools/hsu-master/supervisor/ports"
	"github.com/core-tools/hsu-master/supervisor/probe"
	"github.com/core-tools/hsu-master/supervisor/recovery"
	"github.com/core-tools/hsu-master/supervisor/schedule"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// Notifier makes the notify sockets of workers.
type Notifier struct {
	RuntimeDir string // holds them
	// Listen makes the socket at a path for a worker of the user, Restore takes over one that outlived an earlier
	// master. The caller of Restore closes the file.
	Listen  func(path string, uid uint32, log *slog.Logger) (NotifySocket, error)
	Restore func(path string, file *os.File, log *slog.Logger) (NotifySocket, error)
}

// Env has the parts that the workers of one master share. All fields but Essential are required.
type Env struct {
	Store    *store.DB
	Log      *slog.Logger
	LogDir   string // holds the workers' output files
	Notify   Notifier
	Rotator  *rotate.Rotator
	Keeper   launcher.Keeper
	Launcher launcher.Launcher
	Starts   *StartQueue // of the starts that are being prepared
	Turns    *Turns      // of adopted workers, when the master serves
	Services *services.Registry
	Ports    *ports.Book
	Recovery *recovery.Context // of the present recovery, or of the last one

	BootID   string
	BootTime func() time.Duration // CLOCK_BOOTTIME
	Jitter   func() float64       // in [0,1)
	Checks   *probe.Scheduler
	Clock    *schedule.Clock

	Secrets records.SecretKey // of the environments in the records

	Recovered <-chan struct{} // closed when every worker is recovered
	Hurry     <-chan struct{} // closed to cut the grace of stops short
	Stopping  <-chan struct{} // closed when the master stops: no worker is started any more

	// Blocked returns the reason why no worker of the unit can be started now, "" if one can be.
	Blocked func(unit string) string

	// Essential is called when an essential worker has ended; it must not block. It may be nil.
	Essential func(End)

	// Dial connects to the worker that listens on the port.
	Dial func(port int) (Link, error)
	// Prober makes the prober of an expanded check.
	Prober func(s probe.Spec, t probe.Target) probe.Prober
	// AwaitListener returns when a process accepts on the port; it reports each refused connect.
	AwaitListener func(ctx context.Context, port int, refused func(error)) error
}

// turn returns the time until a worker does the work that it has left until the master serves.
func (e *Env) turn(adopted bool) time.Duration {
	if !adopted {
		return 0
	}
	return e.Turns.Take()
}
