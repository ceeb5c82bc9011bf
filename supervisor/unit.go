package supervisor

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

	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// Unit describes a process and how many replicas of it are wanted. Each
// replica fills a worker slot named "<Name>-<index>".
type Unit struct {
	Name string
	// Path of the executable. Workers run with its folder as working directory
	// unchanged: they inherit the master's.
	Path string
	// Args follow the path; "--port N" is appended to them, the HSU convention.
	Args     []string
	Replicas int
	// Services are the full names of the gRPC services that its workers offer; none
	// means [DefaultService]. Of a worker that has gRPC reflection that is the truth: it
	// may offer more, and does not get calls of what it does not list.
	Services []string
	assumed  bool // Services are the default

	// StartTimeout bounds a start from fork to the first answered Ping; 0 means 30 s.
	StartTimeout time.Duration
	// StopGrace is how long a worker has between SIGTERM and SIGKILL; 0 means 10 s.
	StopGrace time.Duration
	Restart   RestartPolicy
}

// RestartMode says which exits are followed by a restart.
type RestartMode string

const (
	RestartAlways        RestartMode = "always"
	RestartUnlessStopped RestartMode = "unless-stopped"
	RestartOnFailure     RestartMode = "on-failure"
	RestartNever         RestartMode = "never"
)

// RestartPolicy bounds how often and how fast a worker is restarted. The zero
// value means: always, from 100 ms doubling to 30 s, 10 times in 5 minutes.
type RestartPolicy struct {
	Mode RestartMode
	// Backoff is the first delay; it doubles up to MaxBackoff (0 means 30 s).
	Backoff    time.Duration
	MaxBackoff time.Duration
	Budget     Budget
}

// Budget allows Restarts within Window of the worker being ready. Time spent in
// failed starts and in backoff does not move the window, else a worker that
// never gets ready would never use its budget up.
type Budget struct {
	Restarts int
	Window   time.Duration
}

// ParseBudget reads the form "10/5m": restarts per window.
func ParseBudget(s string) (Budget, error) {
	count, window, found := strings.Cut(s, "/")
	n, err := strconv.Atoi(count)
	if !found || err != nil || n < 0 {
		return Budget{}, fmt.Errorf("restart budget %q: want RESTARTS/WINDOW such as 10/5m", s)
	}
	d, err := time.ParseDuration(window)
	if err != nil || d <= 0 {
		return Budget{}, fmt.Errorf("restart budget %q: want a window above 0 such as 5m", s)
	}
	return Budget{Restarts: n, Window: d}, nil
}

func (b Budget) String() string { return fmt.Sprintf("%d/%s", b.Restarts, shortDuration(b.Window)) }

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

// Delays that a policy does not set. They are the ones of DESIGN's restart rule.
const (
	defaultStartTimeout = 30 * time.Second
	defaultStopGrace    = 10 * time.Second
	defaultBackoff      = 100 * time.Millisecond
	defaultMaxBackoff   = 30 * time.Second
	// A worker that was ready this long is restarted at once the first time.
	immediateAfter = 10 * time.Second
	// A worker that has been ready this long starts again from the first delay.
	backoffResetAfter = time.Minute
	// The longest delay where a start fails for want of something of the master's own.
	ownFaultRetry = 5 * time.Second
)

var defaultBudget = Budget{Restarts: 10, Window: 5 * time.Minute}

// withDefaults returns the unit with every zero value replaced.
func (u Unit) withDefaults() Unit {
	u.StartTimeout = orDefault(u.StartTimeout, defaultStartTimeout)
	u.StopGrace = orDefault(u.StopGrace, defaultStopGrace)
	if len(u.Services) == 0 {
		u.Services, u.assumed = []string{DefaultService}, true
	}
	u.Restart.Mode = orDefault(u.Restart.Mode, RestartAlways)
	u.Restart.Backoff = orDefault(u.Restart.Backoff, defaultBackoff)
	u.Restart.MaxBackoff = max(orDefault(u.Restart.MaxBackoff, defaultMaxBackoff), u.Restart.Backoff)
	u.Restart.Budget = orDefault(u.Restart.Budget, defaultBudget)
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
// What is wrong with the executable alone does not stop a [Supervisor]: it may be
// replaced at the moment, and living workers want their master. Starting one fails
// then, and is tried again by the restart policy.
func (u Unit) Validate() error {
	err := u.validate()
	if e := checkExecutable(u.Path); e != nil {
		err = errors.Join(err, e)
	}
	return err
}

func (u Unit) validate() error {
	var errs []error
	if u.Name == "" || strings.ContainsAny(u.Name, "/\x00 \n") {
		errs = append(errs, fmt.Errorf("unit name %q: want a name without slashes and blanks", u.Name))
	}
	if u.Replicas < 0 {
		errs = append(errs, fmt.Errorf("worker count %d: want 0 or more", u.Replicas))
	}
	if len(u.Services) > maxOffers {
		errs = append(errs, fmt.Errorf("services: %d names: want %d at most", len(u.Services), maxOffers))
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

func checkExecutable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return fmt.Errorf("worker path: %w: name the worker's executable", err)
	case info.IsDir():
		return fmt.Errorf("worker path: %s is a directory: name the executable in it", path)
	case !executable(info):
		return fmt.Errorf("worker path: %s is not executable: chmod +x it", path)
	}
	return checkOwner(path, info)
}

// Hash identifies what an instance is started from: the executable's content and
// the arguments. It leaves out what changes nothing in a running process:
// replicas, timeouts, restart policy.
func (u Unit) Hash() (string, error) {
	exe, err := process.HashExecutable(u.Path)
	if err != nil {
		return "", fmt.Errorf("read the worker's executable: %w", err)
	}
	spec, err := json.Marshal([]any{u.Name, exe, u.Args})
	if err != nil {
		return "", fmt.Errorf("describe unit %s: %w", u.Name, err)
	}
	sum := sha256.Sum256(spec)
	return hex.EncodeToString(sum[:]), nil
}

func (u Unit) workerID(index int) string { return u.Name + "-" + strconv.Itoa(index) }
