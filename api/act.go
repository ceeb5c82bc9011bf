package api

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor"
)

// within returns a context that ends after the limit of a request; it may have none. A limit of 0 or less is an error.
func within(ctx context.Context, limit *durationpb.Duration) (context.Context, context.CancelFunc, error) {
	if limit == nil {
		return ctx, func() {}, nil
	}
	if limit.CheckValid() != nil || limit.AsDuration() <= 0 {
		return nil, nil, status.Errorf(codes.InvalidArgument, "timeout: must be above 0, is %s", limit.AsDuration())
	}
	ctx, cancel := context.WithTimeout(ctx, limit.AsDuration())
	return ctx, cancel, nil
}

// Act executes an operator's verb, as [supervisor.Supervisor.Act] describes, and sends its reports.
func (a *Admin) Act(req *adminpb.ActRequest, stream grpc.ServerStreamingServer[adminpb.ActResponse]) error {
	ctx, cancel, err := within(stream.Context(), req.GetTimeout())
	if err != nil {
		return err
	}
	defer cancel()
	act := supervisor.Act{
		Verb: supervisor.Verb(req.GetVerb()), Names: req.GetNames(), All: req.GetAll(),
		Force: req.GetForce(), NoWait: req.GetNoWait(), Outdated: req.GetOutdated(),
	}
	if act.All == (len(act.Names) > 0) {
		return status.Error(codes.InvalidArgument, "name workers or units, or all of them, and not both")
	}
	if act.Verb == supervisor.VerbSignal {
		if act.Signal, err = supervisor.ParseSignal(req.GetSignal()); err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
	}
	err = a.Supervisor.Act(ctx, act, func(r supervisor.Report) {
		_ = stream.Send(&adminpb.ActResponse{ // a client that is gone learns nothing
			Name: r.Name, Phase: string(r.Stage), Reason: sendable(r.Reason),
		})
	})
	return actError(err)
}

func actError(err error) error {
	if err == nil {
		return nil
	}
	code := codes.Internal
	_, unknown := errors.AsType[*supervisor.UnknownError](err)
	_, refused := errors.AsType[*supervisor.RefusedError](err)
	switch {
	case unknown:
		code = codes.NotFound
	case refused:
		code = codes.FailedPrecondition
	case errors.Is(err, supervisor.ErrAct):
		code = codes.Aborted
	case errors.Is(err, store.ErrUnavailable):
		code = codes.ResourceExhausted
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	}
	return status.Error(code, sendable(err.Error()))
}
