package api

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/supervisor"
)

// Reload has the units read anew. It sends what will change, and ends when that is done: with INVALID_ARGUMENT if the
// units are faulty and nothing was changed, with FAILED_PRECONDITION if it cannot begin for another reason, and with
// ABORTED at the first worker that does not get ready. With no_wait it also sends when the change is recorded and has
// begun. A client that goes away does not end the reload.
func (a *Admin) Reload(req *adminpb.ReloadRequest, stream grpc.ServerStreamingServer[adminpb.ReloadResponse]) error {
	if a.Reread == nil {
		return status.Error(codes.Unimplemented, "this master does not read its units again")
	}
	failed := codes.FailedPrecondition
	err := a.Reread(context.WithoutCancel(stream.Context()), req.GetDryRun(),
		func(changes []supervisor.Change, later []string) {
			failed = codes.Aborted
			resp := &adminpb.ReloadResponse{Later: later}
			for _, c := range changes {
				resp.Changes = append(resp.Changes, &adminpb.UnitChange{
					Unit: c.Unit, Action: string(c.Action), Workers: c.Workers, Reasons: c.Reasons,
				})
			}
			_ = stream.Send(resp) // a client that is gone learns nothing
		}, func() {
			if req.GetNoWait() {
				_ = stream.Send(&adminpb.ReloadResponse{Begun: true}) // likewise
			}
		})
	if _, faulty := errors.AsType[*supervisor.FaultError](err); faulty {
		failed = codes.InvalidArgument
	}
	if err != nil {
		return status.Error(failed, err.Error())
	}
	return nil
}
