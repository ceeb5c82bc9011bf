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
	// Readiness is the check that decides about calls, Liveness the one that decides about restarts. If both are equal
	// or one is zero, one check decides about both. Zero fields are those of [probe.Spec.WithDefaults].
	Readiness, Liveness probe.Spec
}

// RestartMode selects the exits that are followed by a restart.
type RestartMode string

const (
	RestartAlways    RestartMode = "always"
	RestartOnFailure RestartMode = "on-failure"
	RestartNever     RestartMode = "never"
)

// RestartPolicy limits how often and how fast a worker is restarted. The zero value means: always, from 100 ms
// doubling to 30 s, 10 times in 5 minutes.
type RestartPolicy struct {
	Mode RestartMode
	// Backoff is the first delay; it doubles up to MaxBackoff (0 means 30 s).
	Backoff    time.Duration
	MaxBackoff time.Duration
	Budget     RestartBudget
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
)

// DefaultService is the service of workers whose unit names no services, if they answer its GetStatus.
const DefaultService = "proto.MyBusinessService"

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
	u.Restart.Budget = orDefault(u.Restart.Budget, defaultBudget)
	u.Readiness, u.Liveness = u.checks()
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
	errs = append(errs, u.checkHealth()...)
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
