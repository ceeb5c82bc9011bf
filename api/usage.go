package api

import (
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/supervisor/usage"
)

// addUsage adds the usage of the workers to their messages.
func addUsage(workers []*adminpb.Worker, used map[string]usage.Usage) {
	for _, w := range workers {
		u, known := used[w.GetId()]
		if !known {
			continue
		}
		w.Usage = &adminpb.Usage{
			Resident: u.Resident, Cpu: durationpb.New(u.CPU),
			Threads: int32(u.Threads), Processes: int32(u.Processes), //nolint:gosec // both are below the limit of PIDs
		}
		if u.Window > 0 {
			w.Usage.CpuShare = new(u.Share)
		}
		if u.Files >= 0 {
			w.Usage.OpenFiles = new(int32(u.Files)) //nolint:gosec // descriptors are below 2^31
		}
	}
}
