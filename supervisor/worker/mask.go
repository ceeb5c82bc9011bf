package worker

import (
	"context"
	"errors"

	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/probe"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// masking is a prober whose answers contain no value of the worker's environment, whatever the worker or the command of
// the check writes.
type masking struct {
	probe.Prober
	env []string
}

func (m masking) Ping(ctx context.Context) error {
	err := m.Prober.Ping(ctx)
	if err == nil {
		return nil
	}
	text := unit.Mask(err.Error(), m.env)
	if text == err.Error() {
		return err
	}
	if s, found := errors.AsType[interface {
		error
		GRPCStatus() *status.Status
	}](err); found {
		return status.Error(s.GRPCStatus().Code(), unit.Mask(s.GRPCStatus().Message(), m.env))
	}
	return masked{err, text}
}

// maskOf returns the function that removes the values of a worker's environment from its output; nil if there are none.
// If the last instance had another environment than the unit has now, its values are not known, and the function tells
// where the output is.
func maskOf(key records.SecretKey, u *unit.Spec, rec records.Worker, path string) func(lines []string) []string {
	if len(u.Env) == 0 && rec.EnvironmentMAC == "" {
		return nil
	}
	return func(lines []string) []string {
		if len(lines) == 0 {
			return nil
		}
		if key.MAC(u.Name, u.Env) != rec.EnvironmentMAC {
			return []string{"(" + withheld(path) + ")"}
		}
		_, env, err := u.Launch(rec.ID, rec.Port)
		if err != nil {
			env = u.Env // no instance has been started with it
		}
		for i, line := range lines {
			lines[i] = unit.Mask(line, env)
		}
		return lines
	}
}

// masked is an error with another text.
type masked struct {
	error
	text string
}

func (m masked) Error() string { return m.text }

func (m masked) Unwrap() error { return m.error }
