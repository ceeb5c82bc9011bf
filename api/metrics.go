package api

import (
	"cmp"
	"context"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/core-tools/hsu-master/internal/exposition"
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

// reading has the values of one scrape. They are read before anything is written, so that a client that does not read
// holds memory and nothing else.
type reading struct {
	version   string
	processed int64
	writable  bool
	workers   []worker.Info
	used      []workerUsage // sorted by worker
	services  []services.ServiceInfo
	endpoints []endpoint
	gateway   GatewayFigures
}

type workerUsage struct {
	worker string
	usage.Usage
}

// endpoint is an endpoint of a service, present or gone. Its key is the worker's id, which stays the same when the
// worker restarts at another address, or the address of a registered endpoint. The key "" stands for all endpoints that
// are long gone.
type endpoint struct {
	service, key string
	ready        bool
	*services.Figures
}

func (s MetricsSource) read(ctx context.Context) *reading {
	r := &reading{
		version: s.Version, processed: s.Store.Processed(), writable: s.Store.Writable() == nil,
		workers: s.Workers(), services: s.Services(), gateway: s.Gateway(),
	}
	if s.Usage != nil {
		byWorker := s.Usage(ctx)
		r.used = make([]workerUsage, 0, len(byWorker))
		for _, id := range slices.Sorted(maps.Keys(byWorker)) {
			r.used = append(r.used, workerUsage{id, byWorker[id]})
		}
	}
	endpoints := 0
	for i := range r.services {
		endpoints += len(r.services[i].Endpoints) + len(r.services[i].Gone) + 1
	}
	r.endpoints = make([]endpoint, 0, endpoints)
	for i := range r.services {
		r.endpoints = appendEndpoints(r.endpoints, &r.services[i])
	}
	return r
}

func appendEndpoints(list []endpoint, s *services.ServiceInfo) []endpoint {
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		list = append(list, endpoint{s.Name, cmp.Or(e.Worker, e.Address), e.Ready && e.EjectedFor == 0, &e.Figures})
	}
	// The counters of an endpoint that is gone are kept, so that no counter decreases.
	for _, key := range slices.Sorted(maps.Keys(s.Gone)) {
		figures := s.Gone[key]
		list = append(list, endpoint{s.Name, key, false, &figures})
	}
	if s.Past != (services.Figures{}) {
		list = append(list, endpoint{s.Name, "", false, &s.Past})
	}
	return list
}

// writeTo writes all metrics. They contain names, addresses and numbers, and nothing of the content of calls.
func (r *reading) writeTo(out io.Writer) error {
	w := exposition.NewWriter(out)
	for _, m := range metrics {
		w.Begin(m.family)
		m.write(w, r)
	}
	return w.Close()
}

// metric is a family with the function that writes its samples.
type metric struct {
	family *exposition.Family
	write  func(*exposition.Writer, *reading)
}

// metrics are all metrics, in the order in which they are written.
var metrics = slices.Concat(metricsOfMaster, metricsOfWorkers, metricsOfChecks, metricsOfUsage, metricsOfCalls)

func gauge(name, help string, labels ...string) *exposition.Family {
	return exposition.NewGauge("hsu_master_"+name, help, labels...)
}

func total(name, help string, labels ...string) *exposition.Family {
	return exposition.NewCounter("hsu_master_"+name+"_total", help, labels...)
}

var metricsOfMaster = []metric{
	{gauge("info", "What this master is; always 1.", "version"), func(w *exposition.Writer, r *reading) {
		w.Sample(1, r.version)
	}},
	single(total("processed", "Requests in the durable count, over all masters of this state."),
		func(r *reading) float64 { return float64(r.processed) }),
	single(gauge("state_writable", "1 where changes can be made durable, else 0."),
		func(r *reading) float64 { return yes(r.writable) }),
	single(gauge("gateway_client_connections", "Connections of clients that are open."),
		func(r *reading) float64 { return float64(r.gateway.Clients) }),
	single(gauge("gateway_backend_connections", "Connections to endpoints that are open."),
		func(r *reading) float64 { return float64(r.gateway.Backends) }),
	single(gauge("gateway_streams", "Calls under way through the gateway."),
		func(r *reading) float64 { return float64(r.gateway.Streams) }),
	single(gauge("gateway_queued_bytes", "Bytes that wait for a client or an endpoint to take them."),
		func(r *reading) float64 { return float64(r.gateway.Queued) }),
}

func single(f *exposition.Family, value func(*reading) float64) metric {
	return metric{f, func(w *exposition.Writer, r *reading) { w.Sample(value(r)) }}
}

var metricsOfWorkers = []metric{
	{gauge("workers", "Workers by status.", "status"), writeStatuses},
	perWorker(gauge("worker_ready", "1 where requests may go to the worker, else 0.", "worker"),
		func(i *worker.Info) (float64, bool) { return yes(i.Ready), true }),
	perWorker(total("worker_restarts", "Restarts of the worker by policy, over all masters of this state.", "worker"),
		func(i *worker.Info) (float64, bool) { return float64(i.Restarts), true }),
	perWorker(gauge("worker_due_timestamp_seconds",
		"When the worker is run next by its schedule, in Unix time.", "worker"),
		func(i *worker.Info) (float64, bool) {
			if i.Due == nil {
				return 0, false
			}
			return unixTime(i.Due.Next), true
		}),
	perWorker(gauge("worker_last_due_timestamp_seconds",
		"The last due time of the worker's schedule that was run, skipped or missed, in Unix time.", "worker"),
		func(i *worker.Info) (float64, bool) {
			if i.Due == nil || i.Due.Last.IsZero() {
				return 0, false
			}
			return unixTime(i.Due.Last), true
		}),
}

// perWorker returns a metric with a value for each worker for which the function returns true.
func perWorker(f *exposition.Family, value func(*worker.Info) (float64, bool)) metric {
	return metric{f, func(w *exposition.Writer, r *reading) {
		for i := range r.workers {
			if v, ok := value(&r.workers[i]); ok {
				w.Sample(v, r.workers[i].ID)
			}
		}
	}}
}

// statuses are those that have a sample even if no worker has them.
var statuses = []records.Status{
	records.StatusAbsent, records.StatusBackoff, records.StatusCompleted, records.StatusFailed, records.StatusRunning,
	records.StatusScheduled, records.StatusStarting, records.StatusStopped, records.StatusStopping,
	records.StatusUnhealthy, records.StatusWaiting,
}

func writeStatuses(w *exposition.Writer, r *reading) {
	numbers := make(map[records.Status]int, len(statuses))
	for _, status := range statuses {
		numbers[status] = 0
	}
	for i := range r.workers {
		numbers[r.workers[i].Status]++
	}
	for _, status := range slices.Sorted(maps.Keys(numbers)) {
		w.Sample(float64(numbers[status]), string(status))
	}
}

var metricsOfChecks = []metric{
	perCheck(gauge("worker_check_passed",
		"1 where the worker passed its last check, else 0; 0 also while a start waits for its first answer.",
		"check", "probe", "worker"),
		func(w *exposition.Writer, i *worker.Info, c *worker.CheckInfo) {
			if !c.At.IsZero() || i.Status == records.StatusStarting { // a start waits for its first answer
				w.Sample(yes(c.Passed), c.Use, c.Probe, i.ID)
			}
		}),
	perCheck(gauge("worker_check_timestamp_seconds",
		"When the worker was checked last, in Unix time.", "check", "worker"),
		func(w *exposition.Writer, i *worker.Info, c *worker.CheckInfo) {
			if !c.At.IsZero() {
				w.Sample(unixTime(c.At), c.Use, i.ID)
			}
		}),
	perCheck(gauge("worker_check_due_timestamp_seconds",
		"When the worker is checked next, in Unix time.", "check", "worker"),
		func(w *exposition.Writer, i *worker.Info, c *worker.CheckInfo) {
			if !c.Due.IsZero() {
				w.Sample(unixTime(c.Due), c.Use, i.ID)
			}
		}),
}

func perCheck(f *exposition.Family, write func(*exposition.Writer, *worker.Info, *worker.CheckInfo)) metric {
	return metric{f, func(w *exposition.Writer, r *reading) {
		for i := range r.workers {
			info := &r.workers[i]
			for c := range info.Checks {
				write(w, info, &info.Checks[c])
			}
		}
	}}
}

var metricsOfUsage = []metric{
	perUsage(gauge("worker_resident_memory_bytes",
		"Resident memory of the worker's processes; a page that several share counts for each.", "worker"),
		func(u *workerUsage) (float64, bool) { return float64(u.Resident), true }),
	perUsage(total("worker_cpu_seconds",
		"Processor time that the worker's processes have used since its start.", "worker"),
		func(u *workerUsage) (float64, bool) { return u.CPU.Seconds(), true }),
	perUsage(gauge("worker_open_fds", "Open descriptors of the worker's processes.", "worker"),
		func(u *workerUsage) (float64, bool) { return float64(u.Files), u.Files >= 0 }),
	perUsage(gauge("worker_threads", "Threads of the worker's processes.", "worker"),
		func(u *workerUsage) (float64, bool) { return float64(u.Threads), true }),
	perUsage(gauge("worker_processes", "Processes of the worker: its own, and their descendants.", "worker"),
		func(u *workerUsage) (float64, bool) { return float64(u.Processes), true }),
}

func perUsage(f *exposition.Family, value func(*workerUsage) (float64, bool)) metric {
	return metric{f, func(w *exposition.Writer, r *reading) {
		for i := range r.used {
			if v, ok := value(&r.used[i]); ok {
				w.Sample(v, r.used[i].worker)
			}
		}
	}}
}

var metricsOfCalls = []metric{
	{gauge("service_waiting", "Calls that wait for an endpoint to become ready.", "service"), writeWaiting},
	perEndpoint(gauge("endpoint_ready",
		"1 where the endpoint is ready and not ejected, else 0.", "endpoint", "service"),
		func(w *exposition.Writer, e *endpoint) {
			if e.key != "" {
				w.Sample(yes(e.ready), e.key, e.service)
			}
		}),
	perEndpoint(gauge("calls_in_flight", "Calls under way at the endpoint.", "endpoint", "service"),
		func(w *exposition.Writer, e *endpoint) { w.Sample(float64(e.InFlight), e.key, e.service) }),
	perEndpoint(total("calls",
		"Calls that have ended at the endpoint; not those that it cannot have seen.", "endpoint", "service"),
		func(w *exposition.Writer, e *endpoint) { w.Sample(float64(e.Calls), e.key, e.service) }),
	perEndpoint(total("call_failures",
		"Calls that ended with a gRPC status other than OK (0).", "code", "endpoint", "service"), writeFailures),
	perEndpoint(total("call_retries", "Calls that went on to another endpoint.", "endpoint", "service"),
		func(w *exposition.Writer, e *endpoint) { w.Sample(float64(e.Retries), e.key, e.service) }),
	perEndpoint(total("endpoint_ejections",
		"Times that the endpoint was taken out for failing again and again.", "endpoint", "service"),
		func(w *exposition.Writer, e *endpoint) { w.Sample(float64(e.Ejections), e.key, e.service) }),
	perEndpoint(exposition.NewHistogram("hsu_master_call_duration_seconds",
		"How long calls took at the endpoint. An endpoint has it from its first call on.",
		latencyBounds(), "endpoint", "service"), writeLatency),
}

func perEndpoint(f *exposition.Family, write func(*exposition.Writer, *endpoint)) metric {
	return metric{f, func(w *exposition.Writer, r *reading) {
		for i := range r.endpoints {
			write(w, &r.endpoints[i])
		}
	}}
}

func writeWaiting(w *exposition.Writer, r *reading) {
	for i := range r.services {
		w.Sample(float64(r.services[i].Waiting), r.services[i].Name)
	}
}

func writeFailures(w *exposition.Writer, e *endpoint) {
	for code, n := range e.Failures {
		if n > 0 {
			w.Sample(float64(n), strconv.Itoa(code), e.key, e.service)
		}
	}
}

// writeLatency writes nothing of an endpoint that has had no call: its buckets would be more than half of the text.
func writeLatency(w *exposition.Writer, e *endpoint) {
	if e.Calls > 0 {
		w.Histogram(e.Latency.Counts[:], e.Latency.Sum.Seconds(), e.key, e.service)
	}
}

func latencyBounds() []float64 {
	var bounds []float64
	for _, bound := range services.Bounds() {
		bounds = append(bounds, bound.Seconds())
	}
	return bounds
}

func yes(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func unixTime(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
