package main

import (
	"encoding/json"
	"math"
	"regexp"
	"slices"
	"time"
)

// The rows, by the keys that --rows chooses them with.
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
)

// unit is what a row's values are measured in.
type unit string

const (
	perSecond unit = "requests/s"
	seconds   unit = "s"
	bytesUnit unit = "bytes"
	ofCore    unit = "of a core"
)

// figure is what a row is held to.
type figure struct {
	key, what, against string
	unit               unit
	// higher tells that a higher ratio is better.
	higher bool
	// floor is the worst ratio that does, aim the one to work for; 0 is none. A row
	// without against is held to by its value instead of by a ratio.
	floor, aim float64
}

// figures are all rows in the order of the table.
var figures = []figure{
	{rowAlways64, "durable, --sync always, 64 callers", "same server, not counting", perSecond, true, 0.70, 0.85},
	{rowAlways256, "durable, --sync always, 256 callers", "same server, not counting", perSecond, true, 0.78, 0.85},
	{rowInterval64, "durable, --sync interval, 64 callers", "same server, not counting", perSecond, true, 0.90, 0.95},
	{rowInterval256, "durable, --sync interval, 256 callers", "same server, not counting", perSecond, true, 0.90, 0.95},
	{rowLatency, "durable, 1 caller, p50", "not counting + a bbolt commit", seconds, false, 1.15, 0},
	{rowCPU, "server CPU a durable call, 64 callers", "same server, not counting", seconds, false, 1.60, 1.30},
	{rowColdStart, "cold start, exec to 100 workers ready", "bare loop: exec, dial, Ping", seconds, false, 1.15, 0},
	{rowReattach, "re-attach 100, exec to SERVING", "cold start of the same", seconds, false, 0.15, 0},
	{rowRespawn, "worker killed to replacement ready", "exec, dial, Ping of one", seconds, false, 1.50, 0},
	{rowRSS, "RSS with 100 idle workers", "bare gRPC, bbolt, 100 connections", bytesUnit, false, 1.30, 0},
	{rowIdleCPU, "CPU with 100 idle workers", "", ofCore, false, 0.01, 0},
}

// percentiles of single calls, in seconds.
type percentiles struct {
	P50 float64 `json:"p50_s"`
	P99 float64 `json:"p99_s"`
}

// percentilesOf sorts what it is given.
func percentilesOf(took []time.Duration) *percentiles {
	slices.Sort(took)
	return &percentiles{quantile(took, 0.5).Seconds(), quantile(took, 0.99).Seconds()}
}

// row is one measured figure.
type row struct {
	figure
	product, baseline series
	ratio             series // of a row without baseline the values themselves
	// Of calls, where calls were measured: medians over the rounds.
	productLatency, baselineLatency *percentiles
	notes                           []string
}

// newRow computes the ratios; baseline is nil where the row is held to by value.
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
	verdictShort = "SHORT"
)

func (r row) verdict() string {
	got := r.ratio.median()
	meets := func(bound float64) bool {
		return bound != 0 && (r.higher && got >= bound || !r.higher && got <= bound)
	}
	switch {
	case meets(r.aim):
		return verdictAim
	case meets(r.floor):
		return verdictFloor
	}
	return verdictShort
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
	Median float64 `json:"median"`
	Least  float64 `json:"min"`
	Most   float64 `json:"max"`
	Rounds series  `json:"rounds"`
}

func measuredOf(s series) *measured {
	if len(s) == 0 {
		return nil
	}
	m := &measured{Median: s.median(), Rounds: s}
	m.Least, m.Most = s.spread()
	return m
}

// MarshalJSON writes the row as bench.json has it.
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
		Verdict         string       `json:"verdict"`
		ProductLatency  *percentiles `json:"product_latency,omitempty"`
		BaselineLatency *percentiles `json:"baseline_latency,omitempty"`
		Notes           []string     `json:"notes,omitempty"`
	}{
		r.key, r.what, r.against, r.unit, measuredOf(r.product), measuredOf(r.baseline), r.ratioJSON(),
		better, r.floor, r.aim, r.verdict(), r.productLatency, r.baselineLatency, r.notes,
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
