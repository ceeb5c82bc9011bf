package worker

import (
	"context"
	"errors"

	"google.golang.org/grpc/status"

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

// maskOf returns the function that removes the values of a worker's environment from a text; nil if it has none.
func maskOf(u unit.Spec, worker string, port int) func(text string) string {
	if len(u.Env) == 0 {
		return nil
	}
	return func(text string) string {
		_, env, err := u.Launch(worker, port)
		if err != nil {
			env = u.Env // no worker has been started with it
		}
		return unit.Mask(text, env)
	}
}

// masked is an error with another text.
type masked struct {
	error
	text string
}

func (m masked) Error() string { return m.text }

func (m masked) Unwrap() error { return m.error }
