package worker

import (
	"context"

	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/process/oneshot"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// RunCheck runs the command of a check for a unit whose process the master does not start.
func RunCheck(
	ctx context.Context, l launcher.Launcher, u *unit.Spec, id string, command []string,
) (oneshot.Ran, error) {
	path, err := unit.LookUp(command[0])
	if err != nil {
		return oneshot.Ran{}, err
	}
	return l.Run(ctx, launcher.Command{Path: path, Args: command[1:], Dir: u.Dir}, probeOf(id), launcher.NewToken())
}
