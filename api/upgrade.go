package api

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/adminpb"
)

var (
	// ErrUpgrading is returned by [Upgrades] if another upgrade is under way.
	ErrUpgrading = errors.New("another upgrade is under way")
	// ErrNoUpgrade is returned by [Upgrades] if this program does not come from the upgrade.
	ErrNoUpgrade = errors.New("this program does not come from that upgrade")
)

// Upgrades replaces the program of the master in its process.
type Upgrades interface {
	// Begin returns when the program is about to be replaced. It sends each step that has begun.
	Begin(ctx context.Context, binary string, drain time.Duration, send func(*adminpb.UpgradeResponse)) error
	// Outcome returns the outcome of the upgrade that this program comes from, when the master serves.
	Outcome(ctx context.Context, id string) (*adminpb.UpgradeResponse, error)
}

// Upgrade replaces the program of the master, or waits for the outcome of that. A client that goes away does not end
// the upgrade.
func (a *Admin) Upgrade(req *adminpb.UpgradeRequest, stream grpc.ServerStreamingServer[adminpb.UpgradeResponse]) error {
	if a.Upgrades == nil {
		return status.Error(codes.Unimplemented, "this master cannot replace its program")
	}
	if id := req.GetId(); id != "" {
		outcome, err := a.Upgrades.Outcome(stream.Context(), id)
		switch {
		case errors.Is(err, ErrNoUpgrade):
			return status.Error(codes.NotFound, err.Error())
		case err != nil:
			return status.Error(codes.Unavailable, err.Error())
		}
		return stream.Send(outcome)
	}
	drain := req.GetDrain().AsDuration()
	if drain < 0 {
		return status.Errorf(codes.InvalidArgument, "drain %s: must be 0 or more", drain)
	}
	err := a.Upgrades.Begin(context.WithoutCancel(stream.Context()), req.GetBinary(), drain,
		func(resp *adminpb.UpgradeResponse) { _ = stream.Send(resp) }) // a client that is gone learns nothing
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errors.ErrUnsupported):
		return status.Error(codes.Unimplemented, err.Error())
	case errors.Is(err, ErrUpgrading):
		return status.Error(codes.Aborted, err.Error())
	}
	return status.Error(codes.FailedPrecondition, err.Error())
}
