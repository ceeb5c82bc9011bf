package api

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/registrations"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// registryError converts the error of a registration or deregistration to a status.
func registryError(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, registrations.ErrRegistration):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, registrations.ErrTooMany):
		return status.Error(codes.ResourceExhausted, err.Error())
	case errors.Is(err, registrations.ErrNotRegistered):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrClosed):
		return status.Error(codes.Unavailable, err.Error())
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	}
	return status.Error(codes.Internal, err.Error())
}

// scaleError converts the error of a change of a unit's number of workers to a status.
func scaleError(ctx context.Context, err error) error {
	code := codes.FailedPrecondition
	switch {
	case errors.Is(err, supervisor.ErrNoUnit):
		code = codes.NotFound
	case errors.Is(err, supervisor.ErrReplicas), errors.Is(err, supervisor.ErrNotStarted):
		code = codes.InvalidArgument
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrClosed), errors.Is(err, worker.ErrStopping):
		code = codes.Unavailable
	case ctx.Err() != nil:
		code = status.FromContextError(ctx.Err()).Code()
	}
	return status.Error(code, sendable(err.Error()))
}

// statusError converts an error of the business service to a status. The status that a worker returned passes
// unchanged.
func statusError(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, supervisor.ErrBusy):
		return status.Error(codes.ResourceExhausted, err.Error()+": send fewer at a time, or add workers")
	case errors.Is(err, supervisor.ErrNoWorker):
		return status.Error(codes.Unavailable, err.Error()+`: see "hsu-master worker list"`)
	case errors.Is(err, errRequestID):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, errOtherRequest):
		return status.Error(codes.AlreadyExists, err.Error()+": use a new id for each request")
	case errors.Is(err, errTooLarge):
		return status.Error(codes.ResourceExhausted, err.Error())
	case errors.Is(err, errLeftOut):
		return status.Error(codes.FailedPrecondition, err.Error()+": send requests with such answers without an id")
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrClosed):
		return status.Error(codes.Unavailable, "not counted, so not done: "+err.Error())
	}
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	answered, isStatus := status.FromError(err)
	switch {
	case !isStatus:
		return status.Error(codes.Internal, err.Error())
	case answered.Code() == codes.Canceled:
		// The caller has not cancelled: the connection to the worker was closed because the worker died.
		return status.Error(codes.Unavailable, "the worker ended before it answered")
	}
	return err
}
