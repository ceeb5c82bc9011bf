package unit

import (
	"fmt"

	"github.com/core-tools/hsu-master/supervisor/probe"
)

// checks returns the checks of readiness and liveness with their defaults.
func (u Spec) checks() (ready, alive probe.Spec) {
	ready, alive = u.Readiness, u.Liveness
	switch {
	case alive.IsZero():
		alive = ready
	case ready.IsZero():
		ready = alive
	}
	return u.checkOf(ready), u.checkOf(alive)
}

// checkOf returns the check with its defaults. Any program, and a worker without a port, is checked by its process.
func (u Spec) checkOf(s probe.Spec) probe.Spec {
	auto := s.Type == "" || s.Type == probe.TypeAuto
	if s.Type == "" && u.Kind == Managed || auto && (u.Port == NoPort || !u.Starts()) {
		s.Type = probe.TypeProcess
	}
	return s.WithDefaults()
}

// OneCheck reports whether one check decides about calls and about restarts.
func (u Spec) OneCheck() bool { return u.Readiness.Equal(u.Liveness) }

// Connects reports whether the master needs a gRPC connection to the workers, for calls or for checks.
func (u Spec) Connects() bool {
	return u.Port != NoPort && (!u.NoServices || u.Readiness.UsesConnection() || u.Liveness.UsesConnection())
}

// Listens reports whether a worker must listen on its port to be ready. A port that the worker chooses is known only
// when the worker listens on it.
func (u Spec) Listens() bool {
	return u.Port != NoPort && (u.Port == AnnouncedPort || u.Connects() || u.Readiness.UsesPort())
}

func (u Spec) checkHealth() []error {
	var errs []error
	report := func(name string, s probe.Spec) {
		if err := s.Validate(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		if (u.Port == NoPort || !u.Starts()) && s.UsesPort() {
			errs = append(errs, fmt.Errorf("%s: a check of type %s needs the port of the worker, which has none",
				name, s.Type))
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
