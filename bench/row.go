package main

import (
	"encoding/json"
	"math"
	"regexp"
	"slices"
	"time"
)

// The rows, by the keys that --rows matches.
const (
	rowAlways64    = "always/64"
	rowAlways256   = "always/256"
	rowInterval64  = "interval/64"
	rowInterval256 = "interval/256"
	rowLatency     = "latency/1"
	rowCPU         = "cpu/64"
	rowColdStart   = "cold-start/100"
	rowReattach    = "re-attach/100"
	rowRespawn     = "respawn"
	rowRSS         = "rss/100"
	rowIdleCPU     = "idle-cpu/100"

	rowStartResults = "start-results/100000"

	rowLoad            = "load/1000"
	rowLoadGrowth      = "load-growth/1000"
	rowColdStartUnits  = "cold-start-units/100"
	rowIdleCPUMixed    = "idle-cpu-mixed/100"
	rowList            = "list/10"
	rowListGrowth      = "list-growth/300"
	rowTop             = "top/300"
	rowRotate          = "rotate"
	rowRotateWrite     = "rotate-write"
	rowRotateGzip      = "rotate-gzip"
	rowRotateGzipWrite = "rotate-gzip-write"
	rowLogsFollow      = "logs-follow"

	rowIdleScrape       = "idle-scrape/300"
	rowGrowthStart      = "growth-start/1000"
	rowGrowthStartCPU   = "growth-start-cpu/1000"
	rowGrowthReattach   = "growth-re-attach/1000"
	rowGrowthIdle       = "growth-idle-cpu/1000"
	rowGrowthRSS        = "growth-rss/1000"
	rowGrowthList       = "growth-list/1000"
	rowGrowthScrape     = "growth-scrape/1000"
	rowGrowthGoroutines = "growth-goroutines/1000"
	rowGrowthFiles      = "growth-fds/1000"

	rowForward1          = "forward/1"
	rowForward8          = "forward/8"
	rowForward64         = "forward/64"
	rowForward256        = "forward/256"
	rowForwardCPU        = "forward-cpu/64B"
	rowForwardCPU4K      = "forward-cpu/4KiB"
	rowForwardCounted64  = "forward-counted/64"
	rowForwardCounted256 = "forward-counted/256"
	rowForwardHuge       = "forward/10MB"
	rowForwardCPUHuge    = "forward-cpu/10MB"
	rowForwardTLS        = "forward-tls/64"
	rowForwardTLSCPU     = "forward-tls-cpu/64B"
	rowForwardChurn      = "forward-churn/50"
	rowForwardChurnP99   = "forward-churn-p99/50"
	rowForwardBulk       = "forward-bulk"
	rowForwardBulkRSS    = "forward-bulk-rss"
	rowForwardIdle       = "forward-idle/10000"
	rowForwardCrowd      = "forward-crowd/1000"
)

// unit is the unit of a row's values.
type unit string

const (
	perSecond unit = "requests/s"
	seconds   unit = "s"
	bytesUnit unit = "bytes"
	ofCore    unit = "of a core"
	perBytes  unit = "bytes/s"
	count     unit = "number"
)

// figure is the definition of a row, with its targets.
type figure struct {
	key, what, against string
	unit               unit
	// higher means that a higher ratio is better.
	higher bool
	// floor is the worst acceptable ratio, aim the target; 0 means none. If against is empty, both apply to the
	// value instead of a ratio.
	floor, aim float64
	// aimValue is the target if it is a value while the floor is a ratio.
	aimValue float64
	// growth means that the figure is measured with several numbers of workers.
	growth bool
	// beatsPeers means that the floor is the best ratio of the peers in the same run.
	beatsPeers bool
}

// figures are all rows in the order of the table.
var figures = []figure{
	{
		key: rowAlways64, what: "durable, --sync always, 64 callers", against: "same server, not counting",
		unit: perSecond, higher: true, floor: 0.75, aim: 0.85,
	},
	{
		key: rowAlways256, what: "durable, --sync always, 256 callers", against: "same server, not counting",
		unit: perSecond, higher: true, floor: 0.78, aim: 0.85,
	},
	{
		key: rowInterval64, what: "durable, --sync interval, 64 callers", against: "same server, not counting",
		unit: perSecond, higher: true, floor: 0.90, aim: 0.95,
	},
	{
		key: rowInterval256, what: "durable, --sync interval, 256 callers", against: "same server, not counting",
		unit: perSecond, higher: true, floor: 0.90, aim: 0.95,
	},
	{
		key: rowLatency, what: "durable, 1 caller, p50", against: "not counting + write, fdatasync",
		unit: seconds, floor: 1.15,
	},
	{
		key: rowCPU, what: "server CPU a durable call, 64 callers", against: "same server, not counting",
		unit: seconds, floor: 1.40, aim: 1.30,
	},
	{
		key: rowColdStart, what: "cold start, exec to 100 workers ready", against: "bare loop: exec, dial, Ping",
		unit: seconds, floor: 1.15,
	},
	{
		key: rowReattach, what: "re-attach 100, exec to SERVING", against: "bare loop: exec, dial, Ping",
		unit: seconds, floor: 0.15,
	},
	{
		key: rowRespawn, what: "worker killed to replacement ready", against: "exec, dial, Ping of one",
		unit: seconds, floor: 1.10,
	},
	{
		key: rowRSS, what: "RSS with 100 idle workers", against: "bare gRPC, bbolt, 100 connections",
		unit: bytesUnit, floor: 1.20,
	},
	{
		key: rowIdleCPU, what: "CPU with 100 idle workers",
		unit: ofCore, floor: 0.01,
	},
	{
		key: rowStartResults, what: "exec to SERVING, 100000 stored results", against: "no stored results",
		unit: seconds, floor: 4, aimValue: 0.1,
	},

	{
		key: rowLoad, what: "CPU to load a file of 1000 units", against: "goccy's parser alone",
		unit: seconds, floor: 1.5,
	},
	{
		key: rowLoadGrowth, what: "CPU to load 100 of 1000 units", against: "a file of 100 units",
		unit: seconds, floor: 1.5,
	},
	{
		key: rowColdStartUnits, what: "exec to 100 managed workers recorded", against: "bare loop of execs",
		unit: seconds, floor: 1.15,
	},
	{
		key: rowIdleCPUMixed, what: "CPU with 100 idle units, half managed", against: "100 integrated units",
		unit: ofCore, floor: 1.2,
	},
	{
		key: rowList, what: "CPU of worker list, 10 workers", against: "CPU of version",
		unit: seconds, floor: 3,
	},
	{
		key: rowListGrowth, what: "CPU of worker list, 300 workers", against: "10 workers",
		unit: seconds, floor: 10,
	},
	{
		key: rowTop, what: "CPU of a master of 300 that top watches", against: "idle master of 300",
		unit: ofCore, floor: 5,
	},
	rotatedOutput(rowRotate, "output of a worker, log rotated"),
	rotatedWrite(rowRotateWrite, "p99 of a write to a rotated log"),
	rotatedOutput(rowRotateGzip, "output of a worker, log rotated, compressed"),
	rotatedWrite(rowRotateGzipWrite, "p99 of a write to such a log"),
	{
		key: rowLogsFollow, what: "CPU to follow 50 logs, 10000 lines/s", against: "tail -f of the files",
		unit: ofCore, floor: 3,
	},

	{
		key: rowIdleScrape, what: "CPU with 300 idle workers, a scrape a second",
		unit: ofCore, floor: 0.01,
	},
	grows(rowGrowthStart, "exec to all workers ready", seconds),
	grows(rowGrowthStartCPU, "CPU of the master for that", seconds),
	grows(rowGrowthReattach, "re-attach, exec to SERVING", seconds),
	grows(rowGrowthIdle, "CPU with idle workers", ofCore),
	grows(rowGrowthRSS, "RSS with idle workers", bytesUnit),
	grows(rowGrowthList, "CPU of worker list and the master for it", seconds),
	grows(rowGrowthScrape, "CPU of the master a scrape", seconds),
	grows(rowGrowthGoroutines, "goroutines of the master", count),
	grows(rowGrowthFiles, "descriptors of the master", count),

	forwarded(rowForward1, "forwarded, 64 bytes, 1 caller"),
	forwarded(rowForward8, "forwarded, 64 bytes, 8 callers"),
	forwarded(rowForward64, "forwarded, 64 bytes, 64 callers"),
	forwarded(rowForward256, "forwarded, 64 bytes, 256 callers"),
	{
		key: rowForwardCPU, what: "proxy CPU a call, 64 bytes, 64 callers", against: "HAProxy",
		unit: seconds, floor: 1, aimValue: 9e-6,
	},
	{
		key: rowForwardCPU4K, what: "proxy CPU a call, 4 KiB, 64 callers", against: "HAProxy",
		unit: seconds, floor: 1, aimValue: 12e-6,
	},
	{
		key: rowForwardCounted64, what: "forwarded and counted, 64 callers", against: "forwarded, not counted",
		unit: perSecond, higher: true, floor: 0.75, aim: 0.9,
	},
	{
		key: rowForwardCounted256, what: "forwarded and counted, 256 callers", against: "forwarded, not counted",
		unit: perSecond, higher: true, floor: 0.75, aim: 0.9,
	},
	forwarded(rowForwardHuge, "forwarded, 10 MB there and back, 4 callers"),
	{
		key: rowForwardCPUHuge, what: "proxy CPU a call, 10 MB, 4 callers", against: "HAProxy",
		unit: seconds, floor: 1,
	},
	{
		key: rowForwardTLS, what: "forwarded from TLS, 64 bytes, 64 callers", against: "HAProxy with TLS",
		unit: perSecond, higher: true, floor: 1,
	},
	{
		key: rowForwardTLSCPU, what: "proxy CPU a call from TLS, 64 callers", against: "HAProxy with TLS",
		unit: seconds, floor: 1,
	},
	{
		key: rowForwardChurn, what: "forwarded while 50 endpoints a second come and go", against: "no registrations",
		unit: perSecond, higher: true, floor: 0.7,
	},
	{
		key: rowForwardChurnP99, what: "p99 of such a call", against: "no registrations",
		unit: seconds, floor: 2,
	},
	{
		key: rowForwardBulk, what: "1 GiB there and back in one stream", against: "worker called directly",
		unit: perBytes, higher: true, floor: 0.8,
	},
	{
		key: rowForwardBulkRSS, what: "growth of RSS by that",
		unit: bytesUnit, floor: 8 << 20,
	},
	{
		key: rowForwardIdle, what: "memory a stream, 10000 idle streams",
		unit: bytesUnit, floor: 2 << 10, aim: 1 << 10,
	},
	{
		key: rowForwardCrowd, what: "forwarded to 10 workers, 1000 connections", against: "10 connections",
		unit: perSecond, higher: true, floor: 0.85,
	},
}

func rotatedOutput(key, what string) figure {
	return figure{key: key, what: what, against: "log not rotated", unit: perBytes, higher: true, floor: 0.9}
}

func rotatedWrite(key, what string) figure {
	return figure{key: key, what: what, against: "log not rotated", unit: seconds, floor: 2}
}

func grows(key, what string, u unit) figure {
	return figure{key: key, what: what, against: "a worker of 100", unit: u, floor: 1.25, growth: true}
}

func forwarded(key, what string) figure {
	return figure{
		key: key, what: what, against: "worker called directly",
		unit: perSecond, higher: true, aim: 0.85, beatsPeers: true,
	}
}

// percentiles are those of single calls, in seconds.
type percentiles struct {
	P50 float64 `json:"p50_s"`
	P99 float64 `json:"p99_s"`
}

// percentilesOf sorts its argument.
func percentilesOf(took []time.Duration) *percentiles {
	slices.Sort(took)
	return &percentiles{quantile(took, 0.5).Seconds(), quantile(took, 0.99).Seconds()}
}

// row is one measured figure.
type row struct {
	figure
	product, baseline series
	ratio             series // the values themselves if the row has no baseline
	// Medians over the rounds, only for rows that measure calls.
	productLatency, baselineLatency *percentiles
	notes                           []string
	// peers are the same ratio for other proxies in the same run.
	peers []peerRatio
	// growth is set if the figure's is.
	growth *growth
	// missing is the reason why the row, or a part that its targets need, was not measured.
	missing string
}

// peerRatio is another proxy's ratio for the product's row.
type peerRatio struct {
	Name  string    `json:"name"`
	Ratio *measured `json:"ratio"`
}

// unmeasured returns a row that cannot be measured on this machine.
func unmeasured(key, why string) row {
	r := newRow(key, nil, nil)
	r.missing = why
	return r
}

// beside adds a peer's ratio.
func (r *row) beside(name string, ratio series) {
	r.peers = append(r.peers, peerRatio{name, measuredOf(ratio)})
	if r.beatsPeers {
		r.floor = max(r.floor, ratio.median())
	}
}

// newRow computes the ratios; baseline is nil if the row is judged by its value.
func newRow(key string, product, baseline series) row {
	r := row{product: product, baseline: baseline, ratio: product}
	for _, f := range figures {
		if f.key == key {
			r.figure = f
		}
	}
	if baseline != nil {
		r.ratio = product.over(baseline)
	}
	return r
}

// Verdicts.
const (
	verdictAim   = "aim met"
	verdictFloor = "met"
	verdictShort = "NOT MET"
	verdictNone  = "not measured"
)

func (r row) verdict() string {
	meets := func(got, bound float64) bool {
		return bound != 0 && (r.higher && got >= bound || !r.higher && got <= bound)
	}
	got := r.ratio.median()
	switch {
	case r.missing != "":
		return verdictNone
	case !meets(got, r.floor):
		return verdictShort
	case meets(got, r.aim), meets(r.product.median(), r.aimValue):
		return verdictAim
	}
	return verdictFloor
}

// wanted returns the keys that the expression matches.
func wanted(expr *regexp.Regexp) map[string]bool {
	keys := make(map[string]bool)
	for _, f := range figures {
		if expr.MatchString(f.key) {
			keys[f.key] = true
		}
	}
	return keys
}

// measured is one side of a row as JSON: base units, the median first.
type measured struct {
	Median jsonNumber `json:"median"`
	Least  jsonNumber `json:"min"`
	Most   jsonNumber `json:"max"`
	Rounds series     `json:"rounds"`
}

func measuredOf(s series) *measured {
	if len(s) == 0 {
		return nil
	}
	least, most := s.spread()
	return &measured{Median: jsonNumber(s.median()), Least: jsonNumber(least), Most: jsonNumber(most), Rounds: s}
}

// MarshalJSON returns the row in the format of bench.json.
func (r row) MarshalJSON() ([]byte, error) {
	better := "lower"
	if r.higher {
		better = "higher"
	}
	return json.Marshal(struct {
		Key             string       `json:"key"`
		What            string       `json:"what"`
		Against         string       `json:"against,omitempty"`
		Unit            unit         `json:"unit"`
		Product         *measured    `json:"product"`
		Baseline        *measured    `json:"baseline,omitempty"`
		Ratio           *measured    `json:"ratio,omitempty"`
		Better          string       `json:"better"`
		Floor           float64      `json:"floor"`
		Aim             float64      `json:"aim,omitempty"`
		AimValue        float64      `json:"aim_value,omitempty"`
		Peers           []peerRatio  `json:"peers,omitempty"`
		Growth          *growth      `json:"growth,omitempty"`
		Missing         string       `json:"missing,omitempty"`
		Verdict         string       `json:"verdict"`
		ProductLatency  *percentiles `json:"product_latency,omitempty"`
		BaselineLatency *percentiles `json:"baseline_latency,omitempty"`
		Notes           []string     `json:"notes,omitempty"`
	}{
		r.key, r.what, r.against, r.unit, measuredOf(r.product), measuredOf(r.baseline), r.ratioJSON(),
		better, r.floor, r.aim, r.aimValue, r.peers, r.growth, r.missing, r.verdict(),
		r.productLatency, r.baselineLatency, r.notes,
	})
}

func (r row) ratioJSON() *measured {
	if r.baseline == nil {
		return nil
	}
	return measuredOf(r.ratio)
}

// latencies are the percentiles of each round.
type latencies struct{ p50, p99 series }

func (l *latencies) add(p percentiles) {
	l.p50, l.p99 = append(l.p50, p.P50), append(l.p99, p.P99)
}

func (l *latencies) median() *percentiles {
	p := percentiles{l.p50.median(), l.p99.median()}
	if math.IsNaN(p.P50) {
		return nil
	}
	return &p
}
