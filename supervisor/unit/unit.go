// Package unit is what a user describes: a program, the number of its replicas, how it is checked, stopped and
// restarted. It is pure but for the checks of files.
package unit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/supervisor/probe"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// Spec describes a process and the wanted number of its replicas. Each replica fills a worker slot named
// "<Name>-<index>".
type Spec struct {
	Name string
	// Path is the path of the executable. Workers inherit the master's working directory.
	Path string
	// Args follow the path. If the workers have ports, "--port N" is appended to them, the HSU convention.
	Args     []string
	Replicas int
	// NoPort means that the workers are given no port: they are not called, and their health is that of their
	// process. Services must then be empty.
	NoPort bool
	// Services are the full names of the gRPC services that its workers offer. If there are none, each worker that
	// answers GetStatus of [DefaultService] offers that. If a worker has gRPC reflection, its list takes
	// precedence: the worker may offer more services, and gets no calls of services that it does not list.
	Services []string
	// NoServices means that its workers offer no services, even if their reflection lists some. Services must then
	// be empty.
	NoServices bool
	Assumed    bool // Services are the default

	// StartTimeout is the limit from fork to the first answered Ping; 0 means 30 s.
	StartTimeout time.Duration
	// Settle is the time after which a worker without a port is ready if it still runs; 0 means 1 s.
	Settle time.Duration
	// StopGrace is the time between SIGTERM and SIGKILL; 0 means 10 s.
	StopGrace time.Duration
	Restart   RestartPolicy
	// Health is how the workers are checked. Zero fields are those of [probe.DefaultPolicy].
	Health probe.Policy
	// BusyLimit is how long a worker that uses the processor may fail its checks before it is ended; 0 means 5
	// minutes. If it is negative, a busy worker is ended as soon as an idle one.
	BusyLimit time.Duration
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

// WithDefaults returns the unit with every zero value replaced.
func (u Spec) WithDefaults() Spec {
	u.StartTimeout = orDefault(u.StartTimeout, defaultStartTimeout)
	u.Settle = orDefault(u.Settle, defaultSettle)
	u.StopGrace = orDefault(u.StopGrace, defaultStopGrace)
	u.NoServices = u.NoServices || u.NoPort
	if len(u.Services) == 0 {
		u.Services, u.Assumed = []string{DefaultService}, true
	}
	u.Restart.Mode = orDefault(u.Restart.Mode, RestartAlways)
	u.Restart.Backoff = orDefault(u.Restart.Backoff, defaultBackoff)
	u.Restart.MaxBackoff = max(orDefault(u.Restart.MaxBackoff, defaultMaxBackoff), u.Restart.Backoff)
	u.Restart.Factor = orDefault(u.Restart.Factor, defaultFactor)
	u.Restart.Budget = orDefault(u.Restart.Budget, defaultBudget)
	u.Restart.RetryFailed = orDefault(u.Restart.RetryFailed, defaultRetryFailed)
	if u.Restart.SuccessCodes == nil {
		u.Restart.SuccessCodes = []int{0}
	}
	u.BusyLimit = orDefault(u.BusyLimit, defaultBusyLimit)
	health := probe.DefaultPolicy()
	u.Health.Interval = orDefault(u.Health.Interval, health.Interval)
	u.Health.Timeout = orDefault(u.Health.Timeout, health.Timeout)
	u.Health.Missed = orDefault(u.Health.Missed, health.Missed)
	u.Health.Passes = orDefault(u.Health.Passes, health.Passes)
	u.Health.Lateness = orDefault(u.Health.Lateness, health.Lateness)
	return u
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
// A faulty executable alone does not stop a master: it may be in the middle of being replaced, and living
// workers need their master. Starting it then fails and is retried by the restart policy.
func (u Spec) Validate() error {
	err := u.CheckFields()
	if _, e := CheckExecutable(u.Path); e != nil {
		err = errors.Join(err, e)
	}
	return err
}

func (u Spec) CheckFields() error {
	var errs []error
	if u.Name == "" || strings.ContainsAny(u.Name, "/\x00 \n") {
		errs = append(errs, fmt.Errorf("unit name %q: must be a name without slashes and blanks", u.Name))
	}
	if u.Replicas < 0 {
		errs = append(errs, fmt.Errorf("worker count %d: must be 0 or more", u.Replicas))
	}
	if h := u.Health; h.Interval < 0 || h.Timeout < 0 || h.Missed < 0 || h.Passes < 0 || h.Lateness < 0 {
		errs = append(errs, fmt.Errorf("health: %+v: must have no negative field", h))
	}
	errs = append(errs, u.Restart.check()...)
	if (u.NoServices || u.NoPort) && len(u.Services) > 0 {
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
	return errors.Join(errs...)
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

// CheckExecutable returns the file that a process of this executable runs: see [process.CheckProgram].
func CheckExecutable(path string) (identity.FileID, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return identity.FileID{}, fmt.Errorf("worker path: %w: name the worker's executable", err)
	case info.IsDir():
		return identity.FileID{}, fmt.Errorf("worker path: %s is a directory: name the executable in it", path)
	case !executable(info):
		return identity.FileID{}, fmt.Errorf("worker path: %s is not executable: chmod +x it", path)
	}
	exe, err := process.CheckProgram(path)
	if err != nil {
		return identity.FileID{}, fmt.Errorf("worker path: %w", err)
	}
	return exe, nil
}

// Hash identifies the input of a start: the executable's content, the arguments, and whether there is a port. It leaves
// out settings that do not affect a running process: replicas, timeouts, restart policy.
func (u Spec) Hash() (string, error) {
	hash, _, err := u.Version()
	return hash, err
}

// Version returns the hash of the unit and that of its executable.
func (u Spec) Version() (unit, exe string, err error) {
	exe, err = process.HashExecutable(u.Path)
	if err != nil {
		return "", "", fmt.Errorf("read the worker's executable: %w", err)
	}
	start := []any{u.Name, exe, u.Args}
	if u.NoPort {
		start = append(start, "no port")
	}
	spec, err := json.Marshal(start)
	if err != nil {
		return "", "", fmt.Errorf("describe unit %s: %w", u.Name, err)
	}
	sum := sha256.Sum256(spec)
	return hex.EncodeToString(sum[:]), exe, nil
}

func (u Spec) WorkerID(index int) string { return u.Name + "-" + strconv.Itoa(index) }
