package api

import (
	"cmp"
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/services"
	"github.com/core-tools/hsu-master/supervisor/usage"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// MetricsSource provides the values of the metrics. They are read anew at each scrape.
type MetricsSource struct {
	Store    counter
	Workers  func() []worker.Info
	Usage    func(context.Context) map[string]usage.Usage // by worker; nil if it is not measured
	Services func() []services.ServiceInfo
	Gateway  func() GatewayFigures
	Version  string
}

// GatewayFigures are the totals of the relay.
type GatewayFigures struct {
	Clients, Backends, Streams int
	Queued                     int64
}

// MetricsHandler serves the metrics of a master at /metrics in the Prometheus format. They contain names,
// addresses and numbers, and nothing of the content of calls.
func MetricsHandler(source MetricsSource) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{source})
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{Timeout: metricsGather}))
	return mux
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("hsu_master_"+name, help, labels, nil)
}

// endpointLabels are the labels of the metrics of an endpoint. The endpoint label is a worker's id, which stays
// the same when the worker restarts at another address, or the address of a registered endpoint. The value ""
// sums up all endpoints that are long gone.
var endpointLabels = []string{"service", "endpoint"}

var (
	descInfo      = describe("info", "What this master is; always 1.", "version")
	descProcessed = describe("processed_total", "Requests in the durable count, over all masters of this state.")
	descWritable  = describe("state_writable", "1 where changes can be made durable, else 0.")

	descWorkers  = describe("workers", "Workers by status.", "status")
	descReady    = describe("worker_ready", "1 where requests may go to the worker, else 0.", "worker")
	descRestarts = describe("worker_restarts_total",
		"Restarts of the worker by policy, over all masters of this state.", "worker")
	descCheck = describe("worker_check_passed",
		"1 where the worker passed its last check, else 0; 0 also while a start waits for its first answer.",
		"worker", "check", "probe")
	descChecked = describe("worker_check_timestamp_seconds",
		"When the worker was checked last, in Unix time.", "worker", "check")
	descCheckDue = describe("worker_check_due_timestamp_seconds",
		"When the worker is checked next, in Unix time.", "worker", "check")

	descResident = describe("worker_resident_memory_bytes",
		"Resident memory of the worker's processes; a page that several share counts for each.", "worker")
	descCPU = describe("worker_cpu_seconds_total",
		"Processor time that the worker's processes have used since its start.", "worker")
	descFiles = describe("worker_open_fds",
		"Open descriptors of the worker's processes.", "worker")
	descThreads = describe("worker_threads",
		"Threads of the worker's processes.", "worker")
	descProcesses = describe("worker_processes",
		"Processes of the worker: its own, and their descendants.", "worker")

	descDue = describe("worker_due_timestamp_seconds",
		"When the worker is run next by its schedule, in Unix time.", "worker")
	descLastDue = describe("worker_last_due_timestamp_seconds",
		"The last due time of the worker's schedule that was run, skipped or missed, in Unix time.", "worker")

	descClients  = describe("gateway_client_connections", "Connections of clients that are open.")
	descBackends = describe("gateway_backend_connections", "Connections to endpoints that are open.")
	descStreams  = describe("gateway_streams", "Calls under way through the gateway.")
	descQueued   = describe("gateway_queued_bytes", "Bytes that wait for a client or an endpoint to take them.")

	descWaiting = describe("service_waiting",
		"Calls that wait for an endpoint to become ready.", "service")
	descCalls = describe("calls_total",
		"Calls that have ended at the endpoint; not those that it cannot have seen.", endpointLabels...)
	descInFlight = describe("calls_in_flight",
		"Calls under way at the endpoint.", endpointLabels...)
	descFailures = describe("call_failures_total",
		"Calls that ended with a gRPC status other than OK (0).", append(endpointLabels, "code")...)
	descRetries = describe("call_retries_total",
		"Calls that went on to another endpoint.", endpointLabels...)
	descEjections = describe("endpoint_ejections_total",
		"Times that the endpoint was taken out for failing again and again.", endpointLabels...)
	descUp = describe("endpoint_ready",
		"1 where the endpoint is ready and not ejected, else 0.", endpointLabels...)
	descLatency = describe("call_duration_seconds",
		"How long calls took at the endpoint.", endpointLabels...)
)

// collector reads all values at each scrape instead of keeping counters of its own.
type collector struct{ MetricsSource }

// Describe sends no descriptors: the set of endpoints changes. The registry then checks the metrics at each
// scrape.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect sends all metrics.
func (c collector) Collect(out chan<- prometheus.Metric) {
	m := metrics(out)
	m.gauge(descInfo, 1, c.Version)
	m.count(descProcessed, float64(c.Store.Processed()))
	m.gauge(descWritable, yes(c.Store.Writable() == nil))

	m.workers(c.Workers())
	if c.Usage != nil {
		ctx, cancel := context.WithTimeout(context.Background(), metricsGather)
		defer cancel()
		m.usage(c.Usage(ctx))
	}

	gateway := c.Gateway()
	m.gauge(descClients, float64(gateway.Clients))
	m.gauge(descBackends, float64(gateway.Backends))
	m.gauge(descStreams, float64(gateway.Streams))
	m.gauge(descQueued, float64(gateway.Queued))

	m.services(c.Services())
}

// metrics takes the metrics of one scrape.
type metrics chan<- prometheus.Metric

func (m metrics) gauge(desc *prometheus.Desc, value float64, labels ...string) {
	m <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
}

func (m metrics) count(desc *prometheus.Desc, value float64, labels ...string) {
	m <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, value, labels...)
}

func (m metrics) workers(workers []worker.Info) {
	statuses := map[records.Status]int{
		records.StatusStarting: 0, records.StatusRunning: 0, records.StatusUnhealthy: 0, records.StatusStopping: 0,
		records.StatusStopped: 0, records.StatusBackoff: 0, records.StatusFailed: 0, records.StatusCompleted: 0,
		records.StatusWaiting: 0, records.StatusScheduled: 0, records.StatusAbsent: 0,
	}
	for _, w := range workers {
		statuses[w.Status]++
		m.gauge(descReady, yes(w.Ready), w.ID)
		m.count(descRestarts, float64(w.Restarts), w.ID)
		if w.Due != nil {
			m.gauge(descDue, unixTime(w.Due.Next), w.ID)
			if !w.Due.Last.IsZero() {
				m.gauge(descLastDue, unixTime(w.Due.Last), w.ID)
			}
		}
		for _, check := range w.Checks {
			if !check.At.IsZero() || w.Status == records.StatusStarting { // a start waits for its first answer
				m.gauge(descCheck, yes(check.Passed), w.ID, check.Use, sendable(check.Probe))
			}
			if !check.At.IsZero() {
				m.gauge(descChecked, unixTime(check.At), w.ID, check.Use)
			}
			if !check.Due.IsZero() {
				m.gauge(descCheckDue, unixTime(check.Due), w.ID, check.Use)
			}
		}
	}
	for status, n := range statuses {
		m.gauge(descWorkers, float64(n), string(status))
	}
}

// usage sends what each worker uses.
func (m metrics) usage(byWorker map[string]usage.Usage) {
	for id, u := range byWorker {
		m.gauge(descResident, float64(u.Resident), id)
		m.count(descCPU, u.CPU.Seconds(), id)
		m.gauge(descThreads, float64(u.Threads), id)
		m.gauge(descProcesses, float64(u.Processes), id)
		if u.Files >= 0 {
			m.gauge(descFiles, float64(u.Files), id)
		}
	}
}

func (m metrics) services(offered []services.ServiceInfo) {
	for _, s := range offered {
		m.gauge(descWaiting, float64(s.Waiting), s.Name)
		for _, e := range s.Endpoints {
			labels := []string{s.Name, cmp.Or(e.Worker, e.Address)}
			m.gauge(descUp, yes(e.Ready && e.EjectedFor == 0), labels...)
			m.calls(e.Figures, labels)
		}
		// The counters of an endpoint that is gone are kept, so that no counter decreases.
		for key, figures := range s.Gone {
			labels := []string{s.Name, key}
			m.gauge(descUp, 0, labels...)
			m.calls(figures, labels)
		}
		if s.Past != (services.Figures{}) {
			m.calls(s.Past, []string{s.Name, ""})
		}
	}
}

func (m metrics) calls(f services.Figures, labels []string) {
	m.gauge(descInFlight, float64(f.InFlight), labels...)
	m.count(descCalls, float64(f.Calls), labels...)
	m.count(descRetries, float64(f.Retries), labels...)
	m.count(descEjections, float64(f.Ejections), labels...)
	for code, n := range f.Failures {
		if n > 0 {
			m.count(descFailures, float64(n), append(labels, strconv.Itoa(code))...)
		}
	}
	m <- histogram(f.Latency, labels)
}

func histogram(l services.Latency, labels []string) prometheus.Metric {
	buckets := make(map[float64]uint64)
	var sum uint64
	bounds := services.Bounds()
	for i, n := range l.Counts {
		sum += n
		if i < len(bounds) {
			buckets[bounds[i].Seconds()] = sum
		}
	}
	return prometheus.MustNewConstHistogram(descLatency, sum, l.Sum.Seconds(), buckets, labels...)
}

func yes(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func unixTime(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
