package api

import (
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/core-tools/hsu-master/api/adminpb"
)

// shutdownInterval is the interval at which a shutdown looks for changes of its progress.
const shutdownInterval = 100 * time.Millisecond

// Shutdown ends the master, and sends its progress whenever that changes. It fails with FAILED_PRECONDITION if the
// master is the main process of a service, after a response that names it: the service manager would start the next
// master.
func (a *Admin) Shutdown(
	req *adminpb.ShutdownRequest, stream grpc.ServerStreamingServer[adminpb.ShutdownResponse],
) error {
	if a.End == nil {
		return status.Error(codes.Unimplemented, "this master cannot be ended by a call")
	}
	if a.Service.Unit != "" {
		_ = stream.Send(&adminpb.ShutdownResponse{
			MasterPid: masterPID(), Service: a.Service.Unit, UserService: a.Service.User,
		})
		return status.Error(codes.FailedPrecondition, "systemd runs this master as "+a.Service.Unit)
	}
	last := a.shutdownState() // the workers as they were before it
	wait, err := a.End(stream.Context(), req.GetDetach())
	if err != nil {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	ended := make(chan error, 1)
	go func() { ended <- wait(stream.Context()) }()
	tick := time.NewTicker(shutdownInterval)
	defer tick.Stop()
	for {
		if err := stream.Send(last); err != nil {
			return fmt.Errorf("send what the shutdown waits for: %w", err)
		}
		for sent := last; proto.Equal(sent, last); {
			select {
			case err := <-ended:
				return endStatus(err)
			case <-tick.C:
				last = a.shutdownState()
			}
		}
	}
}

func endStatus(err error) error {
	if err == nil {
		return nil
	}
	return status.Error(codes.Aborted, err.Error())
}

func (a *Admin) shutdownState() *adminpb.ShutdownResponse {
	resp := &adminpb.ShutdownResponse{
		MasterPid: masterPID(),
		Calls:     int32(a.InFlight()), //nolint:gosec // the limits of clients bound it
	}
	for _, w := range workerMessages(a.Supervisor.Workers()) {
		if w.GetPid() > 0 && !w.GetUnmanaged() {
			resp.Workers = append(resp.Workers, w.GetId())
		}
	}
	return resp
}

func masterPID() int32 { return int32(os.Getpid()) } //nolint:gosec // a PID fits in 32 bits: see pid_max
