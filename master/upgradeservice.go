package master

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/core-tools/hsu-master/api/adminpb"
)

// upgradeService is a master as the admin service upgrades it.
type upgradeService struct{ master *Master }

func (s upgradeService) Begin(
	ctx context.Context, binary string, drain time.Duration, send func(*adminpb.UpgradeResponse),
) error {
	return s.master.Upgrade(ctx, binary, drain, func(step UpgradeStep, u Upgrade) { send(upgradeMessage(step, u)) })
}

func (s upgradeService) Outcome(ctx context.Context, id string) (*adminpb.UpgradeResponse, error) {
	u, err := s.master.AwaitUpgrade(ctx, id)
	if err != nil {
		return nil, err
	}
	step := UpgradeDone
	if u.Failure != "" {
		step = UpgradeFailed
	}
	return upgradeMessage(step, u), nil
}

func upgradeMessage(step UpgradeStep, u Upgrade) *adminpb.UpgradeResponse {
	return &adminpb.UpgradeResponse{
		Step: adminpb.UpgradeResponse_Step(step), Id: u.ID, From: u.From, To: u.To, //nolint:gosec // it is small
		Cut: int32(u.Cut), Paused: durationpb.New(u.Took), Failure: u.Failure, //nolint:gosec // there are not so many
	}
}
