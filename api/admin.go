package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/internal/systemd"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/logs/tail"
	"github.com/core-tools/hsu-master/supervisor/reactions"
)

// Admin is the admin service of a running master.
type Admin struct {
	adminpb.UnimplementedAdminServer
	Store      *store.DB
	Supervisor *supervisor.Supervisor
	// Reread reads the units anew and makes them the wanted set, unless dryRun is set. It calls planned first, and
	// begun when the change is recorded and has begun. If it is nil, Reload fails with UNIMPLEMENTED.
	Reread func(
		ctx context.Context, dryRun bool, planned func(changes []supervisor.Change, later []string), begun func(),
	) error
	// Commands returns what becomes of the commands for events; nil means that there are none.
	Commands func() reactions.Figures
	Upgrades Upgrades // if it is nil, Upgrade fails with UNIMPLEMENTED
	// End begins to end the master, and leaves its workers running with detach. wait returns when they are stopped or
	// left. If it is nil, Shutdown fails with UNIMPLEMENTED.
	End      func(ctx context.Context, detach bool) (wait func(context.Context) error, err error)
	InFlight func() int      // number of calls in flight
	Service  systemd.Service // whose main process this one is
	Tails    *tail.Hub       // of the workers' logs; if it is nil, Logs fails with UNIMPLEMENTED
	Listen   string          // address of the public server
	Registry string          // URL of the module registry; empty if none is served
	Version  string
	Started  time.Time

	backups sync.Mutex // held while a backup is built in memory
}

// NewAdminServer returns the server for the admin socket. It serves the admin service, the registry, the business
// service and reflection. Calls of any user other than root and this process's own user fail with
// PERMISSION_DENIED, and streams beyond [MaxFollowed] with RESOURCE_EXHAUSTED.
func NewAdminServer(admin *Admin, business proto.MyBusinessServiceServer) *grpc.Server {
	var open followers
	srv := grpc.NewServer(append(ServerOptions(),
		grpc.ReadBufferSize(4<<10), // of each connection, most of which wait
		grpc.Creds(peerCredentials{}),
		grpc.UnaryInterceptor(func(
			ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler,
		) (any, error) {
			ctx, err := authorize(ctx)
			if err != nil {
				return nil, err
			}
			return next(ctx, req)
		}),
		grpc.StreamInterceptor(func(
			srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler,
		) error {
			ctx, err := authorize(stream.Context())
			if err != nil {
				return err
			}
			if endless[info.FullMethod] {
				leave, err := open.enter(supervisor.OperatorOf(ctx).UID)
				if err != nil {
					return err
				}
				defer leave()
			}
			return next(srv, authorizedStream{stream, ctx})
		}))...)
	adminpb.RegisterAdminServer(srv, admin)
	adminpb.RegisterRegistryServer(srv, &registry{supervisor: admin.Supervisor, listen: admin.Listen})
	proto.RegisterMyBusinessServiceServer(srv, business)
	reflection.Register(srv)
	return srv
}

// authorizedStream is a stream whose context has the operator.
type authorizedStream struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // what grpc.ServerStream asks for
}

func (s authorizedStream) Context() context.Context { return s.ctx }

// authorize returns the context of a call with its operator, or PERMISSION_DENIED.
func authorize(ctx context.Context) (context.Context, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, status.Error(codes.PermissionDenied, "the caller is not known")
	}
	caller, ok := p.AuthInfo.(peerIdentity)
	if !ok {
		return nil, status.Error(codes.PermissionDenied, "the caller's user is not known")
	}
	if caller.uid != 0 && int(caller.uid) != os.Geteuid() {
		return nil, status.Error(codes.PermissionDenied, fmt.Sprintf(
			"user %d may not administer this master: ask as root or as user %d", caller.uid, os.Geteuid()))
	}
	return withOperator(ctx, caller.uid), nil
}

// GetState returns the whole state of the master and its workers. If the store cannot be read, the response still
// describes the workers.
func (a *Admin) GetState(ctx context.Context, _ *adminpb.GetStateRequest) (*adminpb.GetStateResponse, error) {
	snap, err := a.Store.Present()
	if err != nil && !errors.Is(err, store.ErrUnavailable) {
		// If the state cannot be read, the operator still needs the status of the workers.
		snap.Bad = map[string]error{"(all)": err}
	}
	workers := a.Supervisor.Workers()
	state := stateOf(snap, workers)
	addDisabled(state.GetUnits(), supervisor.DisabledUnits(a.Supervisor))
	addUsage(state.GetWorkers(), a.Supervisor.Usage(ctx))
	state.Services = serviceMessages(workers, a.Supervisor.Registrations().List(), a.Supervisor.Services())
	if err := a.Store.Writable(); err != nil {
		state.WriteError = err.Error()
	}
	if a.Commands != nil {
		state.EventCommands = commandsMessage(a.Commands())
	}
	state.StateDir = a.Store.StateDirID().String()
	state.Source = SourceLive
	state.MasterPid = masterPID()
	state.Status = string(a.Supervisor.Status())
	state.Listen, state.Registry = a.Listen, a.Registry
	state.Version = a.Version
	state.MasterStartedAt = timestamp(a.Started)
	return &adminpb.GetStateResponse{State: state}, nil
}

// ListWorkers returns only the workers.
func (a *Admin) ListWorkers(
	ctx context.Context, _ *adminpb.ListWorkersRequest,
) (*adminpb.ListWorkersResponse, error) {
	infos := a.Supervisor.Workers()
	workers := workerMessages(infos)
	addUsage(workers, a.Supervisor.Usage(ctx))
	for i, info := range infos {
		workers[i].Calls = callsOf(info, a.Supervisor.Services())
	}
	return &adminpb.ListWorkersResponse{Workers: workers}, nil
}

// Scale sets the number of workers of a unit.
func (a *Admin) Scale(ctx context.Context, req *adminpb.ScaleRequest) (*adminpb.ScaleResponse, error) {
	ctx, cancel, err := within(ctx, req.GetTimeout())
	if err != nil {
		return nil, err
	}
	defer cancel()
	scaling, err := a.Supervisor.Scale(ctx, req.GetUnit(), int(req.GetReplicas()))
	if err != nil {
		return nil, scaleError(ctx, err)
	}
	if !req.GetNoWait() {
		if err := scaling.Wait(ctx); err != nil {
			return nil, scaleError(ctx, fmt.Errorf("the number is recorded, but %w", err))
		}
	}
	return &adminpb.ScaleResponse{
		Before:     int32(scaling.Before),     //nolint:gosec // a record's fit in 32 bits
		Configured: int32(scaling.Configured), //nolint:gosec // likewise
		Added:      scaling.Added(), Removed: scaling.Surplus(),
	}, nil
}

// chunkSize is the maximum number of backup bytes in one message.
const chunkSize = 256 << 10

// Backup streams a copy of the state. It builds the copy in memory first: streaming from an open transaction
// would let a slow client keep that transaction open, and the database file would grow meanwhile.
func (a *Admin) Backup(_ *adminpb.BackupRequest, stream grpc.ServerStreamingServer[adminpb.BackupResponse]) error {
	a.backups.Lock()
	var buf bytes.Buffer
	err := a.Store.WriteBackup(&buf)
	a.backups.Unlock()
	if err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	size := int64(buf.Len())
	for buf.Len() > 0 {
		if err := stream.Send(&adminpb.BackupResponse{Data: buf.Next(chunkSize), Size: size}); err != nil {
			return fmt.Errorf("send the backup: %w", err)
		}
	}
	return nil
}
