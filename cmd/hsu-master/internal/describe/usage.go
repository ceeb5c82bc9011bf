package describe

import (
	"fmt"
	"strconv"
	"time"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

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
