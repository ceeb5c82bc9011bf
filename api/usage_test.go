package api

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/services"
	"github.com/core-tools/hsu-master/supervisor/usage"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// used is the usage of one worker whose descriptors are known, and of one whose are not.
var used = map[string]usage.Usage{
	"worker-0": {
		Resources: process.Resources{
			Processes: 2, Threads: 9, Resident: 64 << 20, CPU: 1500 * time.Millisecond, Files: 20,
		},
		Share: 0.25, Window: 4 * time.Second,
	},
	"worker-1": {Resources: process.Resources{Processes: 1, Threads: 1, Files: -1}},
}

func TestMetricsTellOfUsage(t *testing.T) {
	source := MetricsSource{
		Store: tallied{}, Workers: func() []worker.Info { return nil },
		Usage:    func(context.Context) map[string]usage.Usage { return used },
		Services: func() []services.ServiceInfo { return nil },
		Gateway:  func() GatewayFigures { return GatewayFigures{} },
	}
	lint(t, source)
	recorder := httptest.NewRecorder()
	MetricsHandler(source).ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, line := range []string{
		`hsu_master_worker_resident_memory_bytes{worker="worker-0"} 6.7108864e+07`,
		`hsu_master_worker_cpu_seconds_total{worker="worker-0"} 1.5`,
		`hsu_master_worker_open_fds{worker="worker-0"} 20`,
		`hsu_master_worker_threads{worker="worker-0"} 9`,
		`hsu_master_worker_processes{worker="worker-0"} 2`,
		`hsu_master_worker_processes{worker="worker-1"} 1`,
	} {
		if !strings.Contains(recorder.Body.String(), line+"\n") {
			t.Errorf("missing: %s", line)
		}
	}
	if strings.Contains(recorder.Body.String(), `hsu_master_worker_open_fds{worker="worker-1"}`) {
		t.Error("descriptors that cannot be read have a number")
	}
}

func TestUsageThatIsNotKnownIsAbsent(t *testing.T) {
	workers := []*adminpb.Worker{{Id: "worker-0"}, {Id: "worker-1"}, {Id: "worker-2"}}
	addUsage(workers, used)
	first := workers[0].GetUsage()
	if first.GetResident() != 64<<20 || first.GetCpu().AsDuration() != 1500*time.Millisecond ||
		first.GetCpuShare() != 0.25 || first.GetOpenFiles() != 20 || first.GetThreads() != 9 ||
		first.GetProcesses() != 2 {
		t.Errorf("usage of the first worker: %v", first)
	}
	if second := workers[1].GetUsage(); second == nil || second.CpuShare != nil || second.OpenFiles != nil {
		t.Errorf("usage of the second worker: %v, want neither a share nor descriptors", second)
	}
	if third := workers[2].GetUsage(); third != nil {
		t.Errorf("usage of a worker of which nothing is known: %v", third)
	}
}
