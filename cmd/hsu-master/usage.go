package main

import (
	"context"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/top"
)

const wideFlag = "wide"

func wideOutput() cli.Flag {
	return &cli.BoolFlag{Name: wideFlag, Usage: "add what the processes of each worker use"}
}

// withShares returns the state with the recent use of the processor. The master knows it if it has been asked within
// the last minute; otherwise the state is read again after a second.
func withShares(ctx context.Context, f folders, state *adminpb.State) (*adminpb.State, error) {
	unknown := slices.ContainsFunc(state.GetWorkers(), func(w *adminpb.Worker) bool {
		return w.GetUsage() != nil && w.GetUsage().CpuShare == nil
	})
	if !unknown || state.GetSource() != api.SourceLive {
		return state, nil
	}
	select {
	case <-time.After(top.Window):
		return readState(ctx, f)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// usageJSON is null if nothing is known, and so are its fields.
type usageJSON struct {
	Resident  int64    `json:"resident"`   // bytes
	CPU       float64  `json:"cpu"`        // seconds
	CPUShare  *float64 `json:"cpu_share"`  // 1 is a whole core
	OpenFiles *int32   `json:"open_files"` // descriptors
	Threads   int32    `json:"threads"`
	Processes int32    `json:"processes"`
}

func usageToJSON(u *adminpb.Usage) *usageJSON {
	if u == nil {
		return nil
	}
	return &usageJSON{
		Resident: u.GetResident(), CPU: u.GetCpu().AsDuration().Seconds(), CPUShare: u.CpuShare,
		OpenFiles: u.OpenFiles, Threads: u.GetThreads(), Processes: u.GetProcesses(),
	}
}
