package config

import (
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/internal/nearest"
)

func (u *Unit) policyKeys() []key {
	return []key{
		{name: "health", value: fields(&u.Health), doc: "how the workers are checked"},
		{
			name: "readiness", value: fields(&u.Readiness), optional: true,
			doc: "replaces `health` for the decision whether a worker gets calls; it has the same keys",
		},
		{
			name: "liveness", value: fields(&u.Liveness), optional: true,
			doc: "replaces `health` for the decision whether a worker is restarted; it has the same keys",
		},
		{name: "start", value: fields(&u.Start), kinds: started, doc: "how a worker is started"},
		{name: "restart", value: fields(&u.Restart), kinds: started, doc: "what happens after a worker has ended"},
		{
			name: "essential", value: yesNo(&u.Essential), def: "false", kinds: started,
			doc: "if a worker fails or ends, the master stops everything and exits",
		},
		{name: "stop", value: fields(&u.Stop), doc: "how a worker is stopped"},
		{
			name: "limits", value: fields(&u.Limits), kinds: started,
			doc: "limits of each worker",
		},
		{
			name: "memory_restart", value: size(&u.MemoryRestart, 1), kinds: started,
			doc: "drains and restarts a worker whose processes use more resident memory, by any `restart.policy`",
		},
		{name: "log", value: fields(&u.Log), kinds: started, doc: "the output of the workers"},
		{name: "update", value: fields(&u.Update), kinds: started, doc: "how the workers are replaced"},
	}
}

// Start is how a worker is started.
type Start struct {
	Timeout time.Duration
	Settle  time.Duration
	Before  []string
}

func (s *Start) keys() []key {
	return []key{
		{
			name: "timeout", value: duration(&s.Timeout, time.Millisecond), def: "30s",
			doc: "time for a worker to become ready",
		},
		{
			name: "settle", value: duration(&s.Settle, 0), def: "1s",
			doc: "a worker that is checked by `type: process` is ready if it lives this long",
		},
		{
			name: "before", value: command(&s.Before),
			doc: "command that must succeed before each start, within `start.timeout`, which the start then has again",
		},
	}
}

// Restart is what happens after a worker has ended.
type Restart struct {
	Policy       RestartPolicy
	Backoff      Backoff
	Budget       Budget
	RetryFailed  time.Duration
	SuccessCodes []int
}

// RestartPolicy is after which exits a worker is started again.
type RestartPolicy string

// The values of RestartPolicy.
const (
	RestartAlways    RestartPolicy = "always"
	RestartOnFailure RestartPolicy = "on-failure"
	RestartNever     RestartPolicy = "never"
)

func (p *Restart) keys() []key {
	return []key{
		{
			name: "policy", value: oneOf(&p.Policy, RestartAlways, RestartOnFailure, RestartNever), def: "always",
			doc: "after which exits a worker is started again; `never` for a unit with a `schedule`",
		},
		{name: "backoff", value: fields(&p.Backoff), doc: "time before a restart"},
		{name: "budget", value: fields(&p.Budget), doc: "restarts after which a worker counts as failed"},
		{
			name: "retry_failed", value: retry(&p.RetryFailed), def: "5m",
			doc: "time after which a failed worker is tried again; it doubles up to 30m; not with policy `never`",
		},
		{
			name: "success_codes", value: listOf(&p.SuccessCodes, exitCode), def: "[0]",
			doc: "exit codes that are no failure",
		},
	}
}

func exitCode(at *int) value { return number(at, 0, 255) }

// retry is a duration, or never, which is 0.
func retry(at *time.Duration) value {
	base := duration(at, time.Second).(scalar[time.Duration])
	in := base.in
	in.name, in.words = "a duration such as 90s or 5m, or never", []string{"never"}
	return scalar[time.Duration]{at: at, in: in, parse: func(s string) (time.Duration, error) {
		if s == "never" {
			return 0, nil
		}
		return base.parse(s)
	}}
}

// Backoff is the time before a restart. It grows from restart to restart.
type Backoff struct {
	Initial, Max time.Duration
	Factor       float64
}

func (b *Backoff) keys() []key {
	return []key{
		{name: "initial", value: duration(&b.Initial, 0), def: "100ms", doc: "time before the first restart"},
		{name: "max", value: duration(&b.Max, 0), def: "30s", doc: "longest time before a restart"},
		{name: "factor", value: fraction(&b.Factor, 1), def: "2", doc: "by what the time grows"},
	}
}

// Budget is how many restarts are allowed within a time.
type Budget struct {
	Restarts int
	Within   time.Duration
}

func (b *Budget) keys() []key {
	return []key{
		{name: "restarts", value: number(&b.Restarts, 0, math.MaxInt32), def: "10", doc: "number of restarts"},
		{
			name: "within", value: duration(&b.Within, time.Millisecond), def: "5m",
			doc: "time in which they are counted",
		},
	}
}

// Stop is how a worker is stopped.
type Stop struct {
	Signal  Signal
	Grace   time.Duration
	Command []string
	After   []string
}

func (s *Stop) keys() []key {
	return []key{
		{name: "signal", value: signal(&s.Signal), def: "TERM", doc: "signal that asks a worker to end"},
		{name: "grace", value: duration(&s.Grace, 0), def: "10s", doc: "time from the begin of a stop to SIGKILL"},
		{
			name: "command", value: command(&s.Command), kinds: started,
			doc: "command that runs before the signal, within nine tenths of `stop.grace`",
		},
		{
			name: "after", value: command(&s.After), kinds: started,
			doc: "command that runs after each end of a worker, within another `stop.grace`",
		},
	}
}

// Signal is the name of a signal, without SIG.
type Signal string

var signals = []string{
	"HUP", "INT", "QUIT", "ABRT", "KILL", "USR1", "USR2", "PIPE", "ALRM", "TERM", "CONT", "STOP", "TSTP", "TTIN",
	"TTOU", "URG", "VTALRM", "PROF", "WINCH", "IO", "PWR",
}

// numbered are the signals that people know by their numbers.
var numbered = map[string]string{"1": "HUP", "2": "INT", "3": "QUIT", "9": "KILL", "15": "TERM"}

func signal(at *Signal) value {
	in := form{name: "a signal such as TERM, INT or USR1", json: "string", pattern: `^(SIG)?[A-Z0-9]+$|\$`}
	return scalar[Signal]{at: at, in: in, parse: func(s string) (Signal, error) {
		name := strings.TrimPrefix(s, "SIG")
		if !slices.Contains(signals, name) {
			if name := numbered[s]; name != "" {
				return "", valueError{errors.New("must be the name of a signal: write " + name)}
			}
			return "", errors.New("must be one of " + strings.Join(signals, ", ") +
				nearest.DidYouMean(strings.TrimPrefix(strings.ToUpper(s), "SIG"), signals))
		}
		return Signal(name), nil
	}}
}

// Update is how the workers of a unit are replaced.
type Update struct {
	Order          UpdateOrder
	MaxUnavailable int
}

// UpdateOrder is what comes first when a worker is replaced.
type UpdateOrder string

// The values of UpdateOrder.
const (
	StopFirst  UpdateOrder = "stop-first"
	StartFirst UpdateOrder = "start-first"
)

func (u *Update) keys() []key {
	return []key{
		{
			name: "order", value: oneOf(&u.Order, StopFirst, StartFirst), def: "stop-first",
			doc: "`start-first` starts a spare worker before the first one is stopped",
		},
		{
			name: "max_unavailable", value: number(&u.MaxUnavailable, 1, MaxReplicas), def: "1",
			doc: "workers that are replaced at the same time",
		},
	}
}
