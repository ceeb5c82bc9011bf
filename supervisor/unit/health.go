package unit

import (
	"fmt"
	"time"

	"github.com/core-tools/hsu-master/supervisor/probe"
)

// Health is how workers are checked.
type Health struct {
	// Readiness is the check that decides about calls, Liveness the one that decides about restarts. If both are equal
	// or one is zero, one check decides about both. Zero fields are those of [probe.Spec.WithDefaults].
	Readiness, Liveness probe.Spec
	// BusyLimit is how long a worker that uses the processor may fail its checks before it is ended; 0 means 5
	// minutes. If it is negative, a busy worker is ended as soon as an idle one.
	BusyLimit time.Duration
}

// checks returns the checks of readiness and liveness with their defaults.
func (u *Spec) checks() (ready, alive probe.Spec) {
	ready, alive = u.Health.Readiness, u.Health.Liveness
	switch {
	case alive.IsZero():
		alive = ready
	case ready.IsZero():
		ready = alive
	}
	return u.checkOf(ready), u.checkOf(alive)
}

// checkOf returns the check with its defaults. Any program, and a worker without a port, is checked by its process.
func (u *Spec) checkOf(s probe.Spec) probe.Spec {
	auto := s.Type == "" || s.Type == probe.TypeAuto
	if s.Type == "" && u.Kind == Managed || auto && (u.Port == NoPort || !u.Starts()) {
		s.Type = probe.TypeProcess
	}
	return s.WithDefaults()
}

// OneCheck reports whether one check decides about calls and about restarts.
func (u *Spec) OneCheck() bool { return u.Health.Readiness.Equal(u.Health.Liveness) }

// Notifies reports whether the workers have a notify socket. A process without one cannot get it later.
func (u *Spec) Notifies() bool {
	return u.Health.Readiness.Type == probe.TypeNotify || u.Health.Liveness.Type == probe.TypeNotify
}

// Watchdog returns the longest time between two WATCHDOG=1 of a worker, 0 if none are expected. A worker that keeps to
// sd_watchdog_enabled(3) sends twice as many, so that each check finds one.
func (u *Spec) Watchdog() time.Duration {
	if u.Health.Liveness.Type != probe.TypeNotify {
		return 0
	}
	return u.Health.Liveness.Interval
}

// notification describes the notify socket of a process, as it is told at its start; "" if it has none.
func (u *Spec) notification() string {
	switch {
	case !u.Notifies():
		return ""
	case u.Watchdog() == 0:
		return "ready"
	}
	return "watchdog " + u.Watchdog().String()
}

// Connects reports whether the master needs a gRPC connection to the workers, for calls or for checks.
func (u *Spec) Connects() bool {
	h := u.Health
	return u.Port != NoPort && (!u.NoServices || h.Readiness.UsesConnection() || h.Liveness.UsesConnection())
}

// Listens reports whether a worker must listen on its port to be ready. A port that the worker chooses is known only
// when the worker listens on it.
func (u *Spec) Listens() bool {
	return u.Port != NoPort && (u.Port == AnnouncedPort || u.Connects() || u.Health.Readiness.UsesPort())
}

func (u *Spec) checkHealth() []error {
	var errs []error
	report := func(name string, s probe.Spec) {
		if err := s.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		if (u.Port == NoPort || !u.Starts()) && s.UsesPort() {
			errs = append(errs, fmt.Errorf("%s: a check of type %s needs the port of the worker, which has none",
				name, s.Type))
		}
		if s.Type == probe.TypeNotify && !u.Starts() {
			errs = append(errs, fmt.Errorf("%s: a check of type notify is for units that the master starts", name))
		}
	}
	ready, alive := u.checks()
	if ready.Equal(alive) {
		report("health", ready)
		return errs
	}
	report("readiness", ready)
	report("liveness", alive)
	return errs
}
