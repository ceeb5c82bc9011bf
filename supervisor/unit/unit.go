// Package unit describes units as a user writes them: a program, the number of its replicas, how it is checked, stopped
// and restarted. It is pure but for the checks of files.
package unit

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/supervisor/cgroup"
	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// Kind is the relation of the master to the workers of a unit.
type Kind string

// The values of Kind.
const (
	Integrated Kind = "integrated" // a gRPC server that is told its port by "--port N"
	Managed    Kind = "managed"    // any program
	Unmanaged  Kind = "unmanaged"  // a process that something else starts
)

// Port is how the workers of a unit get a port: a positive value is the number of a fixed one, for one replica.
type Port int

// The values of Port that are no number.
const (
	AutoPort Port = 0  // the master chooses a free port for each worker
	NoPort   Port = -1 // the workers are given none: they are not called
	// AnnouncedPort means that each worker chooses its port itself: the one on which its family listens, or the one
	// that it publishes at the module registry.
	AnnouncedPort Port = -2
)

// Spec describes a process and the wanted number of its replicas. Each replica fills a worker slot named
// "<Name>-<index>".
type Spec struct {
	Name string
	Kind Kind // "" means [Integrated]
	// Path is the path of the executable. A name without a slash is looked up in PATH at each start.
	Path string
	// Args follow the path. They may contain placeholders: see [Spec.Launch].
	Args []string
	// Dir is the working directory; "" means that of the master.
	Dir string
	// Env has entries NAME=VALUE that are added to the environment of the master. The values may contain placeholders.
	Env      []string
	Replicas int
	Disabled bool // it has no workers, and cannot be scaled; Replicas must then be 0
	Port     Port
	// Services are the full names of the gRPC services that its workers offer. If there are none, each worker of an
	// integrated unit that answers GetStatus of [DefaultService] offers that. If a worker has gRPC reflection, its list
	// takes precedence: the worker may offer more services, and gets no calls of services that it does not list.
	Services []string
	// NoOthers means that the workers offer no services besides Services, even if their reflection lists more.
	NoOthers bool
	// NoServices means that its workers offer no services, even if their reflection lists some. Services must then
	// be empty.
	NoServices bool
	Assumed    bool // Services are the default

	Start   Start
	Stop    Stop
	Restart RestartPolicy
	// Log is where the output of the workers goes. Zero fields are those of [logs.DefaultPolicy].
	Log    logs.Output
	Health Health
	// DependsOn are the units that its workers wait for before each start. A running worker stays as it is if the
	// condition does not hold any more.
	DependsOn []Dependency
	// Attributes are the user, the rights and the limits of the workers.
	Attributes process.Attributes
	// Limits are those of the cgroup of each worker.
	Limits cgroup.Limits

	// Schedule is when the unit is run; the zero value means that it runs always. A unit with a schedule is managed,
	// has one replica and is not restarted: see [RestartNever].
	Schedule Schedule

	// Essential means that the master stops everything and ends when a worker of the unit has failed, or has ended
	// and is not to be restarted.
	Essential bool
	// MemoryRestart is the resident memory of a worker's family, in bytes, above which it is stopped and started again,
	// whatever its restart policy; 0 means no limit.
	MemoryRestart int64
	// MaxUnavailable is how many workers a change of the units replaces at the same time; 0 means 1.
	MaxUnavailable int
	// StartFirst means that such a change first starts a spare worker, which is stopped when the others are replaced.
	StartFirst bool
	// Discover is how the process of an unmanaged unit is found. Such a unit has one worker, no port and no services.
	Discover process.Pattern
	// Allow is what an operator may have the master do with the process of an unmanaged unit.
	Allow Allow
}

// Start is how a worker is started.
type Start struct {
	// Timeout is the limit from fork to the first passed check; 0 means 30 s.
	Timeout time.Duration
	// Settle is the time after which a worker without a port is ready if it still runs; 0 means 1 s.
	Settle time.Duration
	// Before is the command of [BeforeStart]: a program and its arguments, with the placeholders of [Spec.Launch]. It
	// has Timeout for itself.
	Before []string
}

// Stop is how a worker is stopped.
type Stop struct {
	// Signal asks a worker to end; 0 means SIGTERM.
	Signal syscall.Signal
	// Grace is the time between the begin of the stop and SIGKILL; 0 means 10 s.
	Grace time.Duration
	// Command and After are the commands of [AtStop] and [AfterEnd], in the form of [Start.Before]. Command is a part
	// of the stop, and After has Grace for itself.
	Command, After []string
}

// RestartMode selects the exits that are followed by a restart.
type RestartMode string

const (
	RestartAlways    RestartMode = "always"
	RestartOnFailure RestartMode = "on-failure"
	RestartNever     RestartMode = "never"
)

// RestartPolicy limits how often and how fast a worker is restarted. The zero value means: always, from 100 ms
// doubling to 30 s, 10 times in 5 minutes, and every 5 to 30 minutes after that.
type RestartPolicy struct {
	Mode RestartMode
	// Backoff is the first delay; each further one is Factor (0 means 2) times as long, up to MaxBackoff (0 means
	// 30 s).
	Backoff    time.Duration
	MaxBackoff time.Duration
	Factor     float64
	Budget     RestartBudget
	// RetryFailed is the time after which a worker that has used up its budget is tried again; 0 means 5 minutes. It
	// doubles up to 30 minutes, or up to RetryFailed if that is longer. If it is negative, the worker stays failed. So
	// does a worker with RestartNever.
	RetryFailed time.Duration
	// SuccessCodes are the exit codes that are no failure; nil means 0 alone.
	SuccessCodes []int
}

// Succeeded reports whether a process is known to have ended by itself with a success code.
func (p RestartPolicy) Succeeded(e identity.Exit) bool {
	return e.Source != identity.ExitUnknown && e.Signal == 0 && slices.Contains(p.SuccessCodes, e.Code)
}

// RestartBudget allows Restarts within Window of the worker being ready. Time spent in failed starts and in backoff
// does not move the window, else a worker that never gets ready would never use up its budget.
type RestartBudget struct {
	Restarts int
	Window   time.Duration
}

// ParseRestartBudget reads the form "10/5m": restarts per window.
func ParseRestartBudget(s string) (RestartBudget, error) {
	count, window, found := strings.Cut(s, "/")
	n, err := strconv.Atoi(count)
	if !found || err != nil || n < 0 {
		return RestartBudget{}, fmt.Errorf("restart budget %q: must be RESTARTS/WINDOW such as 10/5m", s)
	}
	d, err := time.ParseDuration(window)
	if err != nil || d <= 0 {
		return RestartBudget{}, fmt.Errorf("restart budget %q: must be a window above 0 such as 5m", s)
	}
	return RestartBudget{Restarts: n, Window: d}, nil
}

func (b RestartBudget) String() string {
	return fmt.Sprintf("%d/%s", b.Restarts, shortDuration(b.Window))
}

// shortDuration drops the zero units that time.Duration prints: 5m, not 5m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Delays that a unit does not set.
const (
	defaultStartTimeout = 30 * time.Second
	defaultSettle       = time.Second
	defaultStopGrace    = 10 * time.Second
	defaultBackoff      = 100 * time.Millisecond
	defaultMaxBackoff   = 30 * time.Second
	defaultRetryFailed  = 5 * time.Minute
	defaultBusyLimit    = 5 * time.Minute
)

// defaultFactor is the factor by which a delay grows if a unit does not set it.
const defaultFactor = 2

// DefaultService is the service of workers whose unit names no services, if they answer its GetStatus.
const DefaultService = "proto.MyBusinessService"

// maxExitCode is the largest exit code of a process.
const maxExitCode = 255

// MaxServices limits the number of services of a worker, configured and reported.
const MaxServices = 256

var defaultBudget = RestartBudget{Restarts: 10, Window: 5 * time.Minute}

// All returns the units without copying them, which are large.
func All(units []Spec) iter.Seq[*Spec] {
	return func(yield func(*Spec) bool) {
		for i := range units {
			if !yield(&units[i]) {
				return
			}
		}
	}
}

// WithDefaults returns a copy of the unit with every zero value replaced.
func (u Spec) WithDefaults() *Spec {
	u.Start.Timeout = orDefault(u.Start.Timeout, defaultStartTimeout)
	u.Start.Settle = orDefault(u.Start.Settle, defaultSettle)
	u.Stop.Grace = orDefault(u.Stop.Grace, defaultStopGrace)
	u.Stop.Signal = orDefault(u.Stop.Signal, syscall.SIGTERM)
	u.Kind = orDefault(u.Kind, Integrated)
	if !u.Starts() {
		u.Port, u.NoServices = NoPort, true
	}
	u.NoServices = u.NoServices || u.Port == NoPort || u.Kind == Managed && len(u.Services) == 0
	if len(u.Services) == 0 {
		u.Services, u.Assumed = []string{DefaultService}, true
	}
	if u.Schedule.Cron != "" {
		u.Restart.Mode = orDefault(u.Restart.Mode, RestartNever)
		u.Schedule.Missed = orDefault(u.Schedule.Missed, MissedSkip)
	}
	u.Restart.Mode = orDefault(u.Restart.Mode, RestartAlways)
	u.Restart.Backoff = orDefault(u.Restart.Backoff, defaultBackoff)
	u.Restart.MaxBackoff = max(orDefault(u.Restart.MaxBackoff, defaultMaxBackoff), u.Restart.Backoff)
	u.Restart.Factor = orDefault(u.Restart.Factor, defaultFactor)
	u.Restart.Budget = orDefault(u.Restart.Budget, defaultBudget)
	u.Health.Readiness, u.Health.Liveness = u.checks()
	u.Restart.RetryFailed = orDefault(u.Restart.RetryFailed, defaultRetryFailed)
	if u.Restart.SuccessCodes == nil {
		u.Restart.SuccessCodes = []int{0}
	}
	u.Health.BusyLimit = orDefault(u.Health.BusyLimit, defaultBusyLimit)
	u.MaxUnavailable = orDefault(u.MaxUnavailable, 1)
	u.Log = u.Log.WithDefaults()
	return &u
}

func orDefault[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

// Validate reports every fault of the unit, each with the name of its field.
//
// A faulty executable, folder or program of [BeforeStart] alone does not stop a master: it may be replaced
// just now, and living workers need their master. Starting it then fails and is retried by the restart policy.
func (u *Spec) Validate() error {
	err := u.CheckFields()
	if !u.Starts() {
		return err
	}
	for _, o := range u.StartErrors() {
		err = errors.Join(err, o)
	}
	return err
}

// CheckFields is [Spec.Validate] without what [Spec.StartErrors] looks for on the host.
func (u *Spec) CheckFields() error {
	var errs []error
	if u.Name == "" || strings.ContainsAny(u.Name, "/\x00 \n") {
		errs = append(errs, fmt.Errorf("unit name %q: must be a name without slashes and blanks", u.Name))
	}
	if u.Kind != "" && u.Kind != Integrated && u.Kind != Managed && u.Kind != Unmanaged {
		errs = append(errs, fmt.Errorf("kind %q: must be %s, %s or %s", u.Kind, Integrated, Managed, Unmanaged))
	}
	if u.Replicas < 0 {
		errs = append(errs, fmt.Errorf("worker count %d: must be 0 or more", u.Replicas))
	}
	if u.Disabled && u.Replicas != 0 {
		errs = append(errs, fmt.Errorf("worker count %d: must be 0 for a disabled unit", u.Replicas))
	}
	errs = append(errs, u.checkPort()...)
	if u.MaxUnavailable < 0 {
		errs = append(errs, fmt.Errorf("max unavailable %d: must be 1 or more", u.MaxUnavailable))
	}
	if u.StartFirst && (u.Port > 0 || u.Kind == Unmanaged || u.Schedule.Cron != "") {
		errs = append(errs, errors.New("start first: is for units that run always, are started by the master and have "+
			"no fixed port"))
	}
	if err := u.Limits.Check(); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, u.checkHealth()...)
	errs = append(errs, u.checkDiscover()...)
	errs = append(errs, u.Restart.check()...)
	errs = append(errs, u.checkSchedule()...)
	errs = append(errs, u.checkHooks()...)
	if u.MemoryRestart < 0 {
		errs = append(errs, fmt.Errorf("memory restart %d: must not be negative", u.MemoryRestart))
	}
	if u.MemoryRestart > 0 && (u.Kind == Unmanaged || u.Schedule.Cron != "") {
		errs = append(errs, errors.New("memory restart: is for units that run always and are started by the master"))
	}
	errs = append(errs, u.checkServices()...)
	return errors.Join(append(errs, u.Log.Validate())...)
}

// checkPort returns the faults of the port, and of the program with that port in the place of its placeholders.
func (u *Spec) checkPort() (errs []error) {
	switch {
	case u.Port < AnnouncedPort || u.Port > 65535:
		errs = append(errs, fmt.Errorf("port %d: must be 1 to 65535, AutoPort, NoPort or AnnouncedPort", u.Port))
	case u.Port > 0 && u.Replicas > 1:
		errs = append(errs, fmt.Errorf("port %d: %d replicas cannot share it", u.Port, u.Replicas))
	}
	port := 1
	if u.Port == AnnouncedPort {
		port = 0
	}
	if _, _, err := u.Launch(u.WorkerID(0), port); err != nil {
		errs = append(errs, err)
	}
	return errs
}

func (u *Spec) checkServices() (errs []error) {
	if (u.NoServices || u.Port == NoPort) && len(u.Services) > 0 {
		errs = append(errs, fmt.Errorf("services: %s is given to a unit without services", u.Services[0]))
	}
	if len(u.Services) > MaxServices {
		errs = append(errs, fmt.Errorf("services: %d names: must be %d at most", len(u.Services), MaxServices))
	}
	for _, name := range u.Services {
		if err := services.CheckName(name); err != nil {
			errs = append(errs, err)
		} else if services.Infrastructure(name) {
			errs = append(errs, fmt.Errorf("service %s: each endpoint has it for itself, leave it out", name))
		}
	}
	return errs
}

// check returns the faults of the policy. A field that is zero is one that is not set.
func (p RestartPolicy) check() (errs []error) {
	if p.Factor != 0 && !(p.Factor >= 1) { // nor NaN
		errs = append(errs, fmt.Errorf("restart backoff: factor %v: must be 1 or more", p.Factor))
	}
	for _, code := range p.SuccessCodes {
		if code < 0 || code > maxExitCode {
			errs = append(errs, fmt.Errorf("success code %d: must be 0 to %d", code, maxExitCode))
		}
	}
	return errs
}

func (u *Spec) WorkerID(index int) string { return u.Name + "-" + strconv.Itoa(index) }
