package services

import (
	"math/bits"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	// Codes is the number of gRPC status codes.
	Codes = 17
	// unknownCode replaces codes that gRPC does not define.
	unknownCode = 2

	// Latencies are counted in buckets: the first one reaches up to firstBucket, each further one up to twice its
	// predecessor, and the last one has no bound.
	firstBucket = 32 * time.Microsecond
	buckets     = 23
)

// Bounds returns the upper bounds of the buckets of a [Latency], except the last bucket, which has none.
func Bounds() []time.Duration {
	bounds := make([]time.Duration, buckets-1)
	for i := range bounds {
		bounds[i] = firstBucket << i
	}
	return bounds
}

// bucketOf returns the index of the bucket for a duration.
func bucketOf(d time.Duration) int {
	return min(bits.Len64(uint64(max(0, d-1))/uint64(firstBucket)), buckets-1)
}

// Figures are the metrics of the calls at an endpoint. A call that is tried at two endpoints counts at both,
// unless the first one cannot have seen it.
type Figures struct {
	Calls    uint64 // ended
	InFlight int
	// Failures by status code. Code 0 is success and is not counted.
	Failures  [Codes]uint64
	Retries   uint64 // calls that were retried
	Ejections uint64
	Latency   Latency
}

// Latency is a histogram of call durations.
type Latency struct {
	// Counts has the number of calls in each bucket (see [Bounds]); it is not cumulative.
	Counts [buckets]uint64
	Sum    time.Duration
}

// Failed returns the number of all failures.
func (f *Figures) Failed() uint64 {
	var sum uint64
	for _, n := range f.Failures {
		sum += n
	}
	return sum
}

// Add adds g to f.
func (f *Figures) Add(g Figures) {
	f.Calls += g.Calls
	f.InFlight += g.InFlight
	f.Retries += g.Retries
	f.Ejections += g.Ejections
	for i, n := range g.Failures {
		f.Failures[i] += n
	}
	for i, n := range g.Latency.Counts {
		f.Latency.Counts[i] += n
	}
	f.Latency.Sum += g.Latency.Sum
}

// figures holds the live counters behind Figures. They outlive the endpoint, so that a restarted worker continues
// counting.
type figures struct {
	inFlight int // guarded by the service's lock

	retries, ejections atomic.Uint64
	failures           [Codes]atomic.Uint64
	latency            [buckets]atomic.Uint64
	sum                atomic.Int64
}

func (f *figures) ended(o Outcome, took time.Duration) {
	if o.Code != 0 {
		code := o.Code
		if code >= Codes {
			code = unknownCode
		}
		f.failures[code].Add(1)
	}
	if o.Retried {
		f.retries.Add(1)
	}
	f.latency[bucketOf(took)].Add(1)
	f.sum.Add(int64(took))
}

// read returns the current Figures. The caller holds the service's lock.
func (f *figures) read() Figures {
	r := Figures{InFlight: f.inFlight, Retries: f.retries.Load(), Ejections: f.ejections.Load()}
	for i := range f.failures {
		r.Failures[i] = f.failures[i].Load()
	}
	for i := range f.latency {
		n := f.latency[i].Load()
		r.Latency.Counts[i] = n
		r.Calls += n
	}
	r.Latency.Sum = time.Duration(f.sum.Load())
	return r
}

const (
	// keepMost bounds the number of endpoints for which a service keeps separate figures.
	keepMost = 4096
	// keepRetired bounds the number of services that are kept for their figures when they are no longer offered.
	keepRetired = 256
)

// keep returns the figures of the endpoint with the key, which continue if the endpoint existed before.
func (s *Service) keep(key string) *figures {
	f := s.kept[key]
	if f != nil {
		return f
	}
	if len(s.kept) >= keepMost {
		present := make(map[*figures]bool, len(s.members))
		for _, m := range s.members {
			present[m.figures] = true
		}
		for key, f := range s.kept {
			if !present[f] && f.inFlight == 0 {
				s.past.Add(f.read())
				delete(s.kept, key)
			}
		}
	}
	f = &figures{}
	s.kept[key] = f
	return f
}

// CodeName returns the name of a status code in the gRPC protocol.
func CodeName(code int) string {
	if code < 0 || code >= len(codeNames) {
		return strconv.Itoa(code)
	}
	return codeNames[code]
}

var codeNames = [Codes]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
	"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
	"INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}
