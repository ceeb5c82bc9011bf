package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/core-tools/hsu-master/internal/fair"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/services"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// tallied is a counter that is not writable if broken is set.
type tallied struct {
	processed int64
	broken    error
}

func (s tallied) AddProcessed(context.Context, int64) error { return s.broken }
func (s tallied) Processed() int64                          { return s.processed }
func (s tallied) Writable() error                           { return s.broken }

// lint checks the metrics with Prometheus's own parser, its registry's checks of consistency, and its linter. What the
// parser has read must have the same text when Prometheus's encoder writes it.
func lint(t *testing.T, source MetricsSource) {
	t.Helper()
	var text bytes.Buffer
	if err := source.read(t.Context()).writeTo(&text); err != nil {
		t.Fatal(err)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	byName, err := parser.TextToMetricFamilies(bytes.NewReader(text.Bytes()))
	if err != nil {
		t.Fatalf("%v in:\n%s", err, text.String())
	}
	families := make([]*dto.MetricFamily, 0, len(byName))
	var again bytes.Buffer
	for line := range strings.Lines(text.String()) {
		if rest, isHelp := strings.CutPrefix(line, "# HELP "); isHelp {
			name, _, _ := strings.Cut(rest, " ")
			families = append(families, byName[name])
			if _, err := expfmt.MetricFamilyToText(&again, byName[name]); err != nil {
				t.Error(err)
			}
		}
	}
	if !bytes.Equal(text.Bytes(), again.Bytes()) {
		t.Errorf("got:\n%s\nwant:\n%s", text.String(), again.String())
	}
	gatherers := prometheus.Gatherers{prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		return families, nil
	})}
	if problems, err := testutil.GatherAndLint(gatherers); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// The figures of an endpoint are kept as long as the service is offered, so that no sum decreases.
func TestCountersDoNotFallWithTheirEndpoints(t *testing.T) {
	registry := services.New(services.Options{})
	registry.Offer("worker-0", "pkg.Service")
	source := MetricsSource{
		Store: tallied{}, Workers: func() []worker.Info { return nil },
		Services: registry.Snapshot, Gateway: func() GatewayFigures { return GatewayFigures{} },
	}
	want := func(when string, lines ...string) {
		t.Helper()
		recorder := httptest.NewRecorder()
		MetricsHandler(source).ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		for _, line := range lines {
			if !strings.Contains(recorder.Body.String(), line+"\n") {
				t.Errorf("%s: missing: %s", when, line)
			}
		}
	}
	call := func(ep *services.Endpoint) {
		t.Helper()
		registry.Add(ep, "pkg.Service")
		lease, err := registry.Service("pkg.Service").Pick(fair.Client{}, "")
		if err != nil {
			t.Fatal(err)
		}
		lease.End(services.Outcome{Code: 5})
		registry.Remove(ep)
	}
	for n := 1; n <= 2; n++ {
		call(&services.Endpoint{Address: "127.0.0.1:1", Worker: "worker-0"})
		want("while the worker is away",
			fmt.Sprintf(`hsu_master_calls_total{endpoint="worker-0",service="pkg.Service"} %d`, n),
			fmt.Sprintf(`hsu_master_call_failures_total{code="5",endpoint="worker-0",service="pkg.Service"} %d`, n),
			`hsu_master_endpoint_ready{endpoint="worker-0",service="pkg.Service"} 0`)
	}
	source.Services = func() []services.ServiceInfo {
		return []services.ServiceInfo{{Name: "pkg.Service", Past: services.Figures{Calls: 9}}}
	}
	want("long after", `hsu_master_calls_total{endpoint="",service="pkg.Service"} 9`)
}

func TestMetricsTellOfChecks(t *testing.T) {
	source := MetricsSource{
		Store: tallied{},
		Workers: func() []worker.Info {
			return []worker.Info{{
				Worker: records.Worker{
					ID: "worker-0", Status: records.StatusRunning,
					Due: &records.Due{Next: time.Unix(200, 0), Last: time.Unix(140, 0)},
				},
				Checks: []worker.CheckInfo{
					{
						Use: "readiness", Probe: "tcp db:1", Passed: true,
						At: time.Unix(100, 5e8), Due: time.Unix(105, 0),
					},
					{Use: "liveness", Probe: "exec \xff", At: time.Unix(99, 0)},
					{Use: "other", Probe: "not asked yet"},
				},
			}, {
				Worker: records.Worker{ID: "worker-1", Status: records.StatusStarting},
				Checks: []worker.CheckInfo{{Use: "start", Probe: "READY=1"}},
			}}
		},
		Services: func() []services.ServiceInfo { return nil },
		Gateway:  func() GatewayFigures { return GatewayFigures{} },
	}
	recorder := httptest.NewRecorder()
	MetricsHandler(source).ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, line := range []string{
		`hsu_master_worker_check_passed{check="readiness",probe="tcp db:1",worker="worker-0"} 1`,
		`hsu_master_worker_check_passed{check="liveness",probe="exec �",worker="worker-0"} 0`,
		`hsu_master_worker_check_timestamp_seconds{check="readiness",worker="worker-0"} 100.5`,
		`hsu_master_worker_check_due_timestamp_seconds{check="readiness",worker="worker-0"} 105`,
		`hsu_master_worker_due_timestamp_seconds{worker="worker-0"} 200`,
		`hsu_master_worker_last_due_timestamp_seconds{worker="worker-0"} 140`,
		`hsu_master_worker_check_passed{check="start",probe="READY=1",worker="worker-1"} 0`,
	} {
		if !strings.Contains(recorder.Body.String(), line+"\n") {
			t.Errorf("missing: %s", line)
		}
	}
	if strings.Contains(recorder.Body.String(), "not asked yet") {
		t.Error("a check without an answer has a result")
	}
}

func TestMetricsTellOfWorkersAndCalls(t *testing.T) {
	endpoint := services.EndpointInfo{Address: "127.0.0.1:40001", Worker: "worker-0", Ready: true}
	endpoint.Calls, endpoint.InFlight, endpoint.Retries, endpoint.Ejections = 7, 2, 1, 3
	endpoint.Failures[14] = 4
	endpoint.Latency.Counts[0], endpoint.Latency.Counts[1] = 5, 1
	endpoint.Latency.Sum = 300 * time.Microsecond
	outside := services.EndpointInfo{Address: "127.0.0.1:9000", Ready: true, EjectedFor: time.Second}
	source := MetricsSource{
		Store: tallied{processed: 12, broken: errors.New("no space left on device")},
		Workers: func() []worker.Info {
			return []worker.Info{
				{Worker: records.Worker{ID: "worker-0", Status: records.StatusRunning, Restarts: 2}, Ready: true},
				{Worker: records.Worker{ID: "worker-1", Status: records.StatusFailed}},
			}
		},
		Services: func() []services.ServiceInfo {
			return []services.ServiceInfo{{
				Name: "pkg.Service", Waiting: 9, Endpoints: []services.EndpointInfo{endpoint, outside},
			}}
		},
		Gateway: func() GatewayFigures { return GatewayFigures{Clients: 1, Backends: 2, Streams: 3, Queued: 4} },
		Version: "v1",
	}
	lint(t, source)
	recorder := httptest.NewRecorder()
	MetricsHandler(source).ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	body, err := io.ReadAll(recorder.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`hsu_master_info{version="v1"} 1`,
		`hsu_master_processed_total 12`,
		`hsu_master_state_writable 0`,
		`hsu_master_workers{status="running"} 1`,
		`hsu_master_workers{status="failed"} 1`,
		`hsu_master_workers{status="backoff"} 0`,
		`hsu_master_worker_ready{worker="worker-0"} 1`,
		`hsu_master_worker_ready{worker="worker-1"} 0`,
		`hsu_master_worker_restarts_total{worker="worker-0"} 2`,
		`hsu_master_gateway_client_connections 1`,
		`hsu_master_gateway_backend_connections 2`,
		`hsu_master_gateway_streams 3`,
		`hsu_master_gateway_queued_bytes 4`,
		`hsu_master_service_waiting{service="pkg.Service"} 9`,
		`hsu_master_calls_total{endpoint="worker-0",service="pkg.Service"} 7`,
		`hsu_master_calls_in_flight{endpoint="worker-0",service="pkg.Service"} 2`,
		`hsu_master_call_failures_total{code="14",endpoint="worker-0",service="pkg.Service"} 4`,
		`hsu_master_call_retries_total{endpoint="worker-0",service="pkg.Service"} 1`,
		`hsu_master_endpoint_ejections_total{endpoint="worker-0",service="pkg.Service"} 3`,
		`hsu_master_endpoint_ready{endpoint="worker-0",service="pkg.Service"} 1`,
		`hsu_master_endpoint_ready{endpoint="127.0.0.1:9000",service="pkg.Service"} 0`,
		`hsu_master_call_duration_seconds_bucket{endpoint="worker-0",service="pkg.Service",le="3.2e-05"} 5`,
		`hsu_master_call_duration_seconds_bucket{endpoint="worker-0",service="pkg.Service",le="6.4e-05"} 6`,
		`hsu_master_call_duration_seconds_count{endpoint="worker-0",service="pkg.Service"} 6`,
		`hsu_master_call_duration_seconds_sum{endpoint="worker-0",service="pkg.Service"} 0.0003`,
	} {
		if !strings.Contains(string(body), want+"\n") {
			t.Errorf("missing: %s", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", body)
	}
}
