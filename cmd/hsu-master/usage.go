package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/top"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

const wideFlag = "wide"

func wideOutput() cli.Flag {
	return &cli.BoolFlag{Name: wideFlag, Usage: "add what the processes of each worker use"}
}

// column is a column of the table of workers besides the usual ones.
type column struct {
	title string
	of    func(*adminpb.Worker) string
}

// usageColumns are those of "worker list --wide". An unknown value is "-".
var usageColumns = []column{
	{"CPU", usageText(func(u *adminpb.Usage) string {
		if u.CpuShare == nil {
			return "-"
		}
		return fmt.Sprintf("%.1f%%", u.GetCpuShare()*100)
	})},
	{"CPU TIME", usageText(func(u *adminpb.Usage) string {
		return u.GetCpu().AsDuration().Round(10 * time.Millisecond).String()
	})},
	{"MEM", usageText(func(u *adminpb.Usage) string { return unit.SizeText(u.GetResident()) })},
	{"FILES", usageText(func(u *adminpb.Usage) string {
		if u.OpenFiles == nil {
			return "-"
		}
		return strconv.Itoa(int(u.GetOpenFiles()))
	})},
	{"THREADS", usageText(func(u *adminpb.Usage) string { return render.Number(u.GetThreads()) })},
	{"PROCS", usageText(func(u *adminpb.Usage) string { return render.Number(u.GetProcesses()) })},
}

func usageText(text func(*adminpb.Usage) string) func(*adminpb.Worker) string {
	return func(w *adminpb.Worker) string {
		if w.GetUsage() == nil {
			return "-"
		}
		return text(w.GetUsage())
	}
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
