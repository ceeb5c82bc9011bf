package services

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	// Codes is how many status codes gRPC has.
	Codes = 17
	// unknownCode stands for those that it does not have.
	unknownCode = 2

	// Latencies are counted in buckets: the first up to firstBucket, each of the others up to twice the one before,
	// the last without an end.
	firstBucket = 32 * time.Microsecond
	buckets     = 23
)

// Bounds returns up to which time each bucket of a [Latency] counts, all but the last, which has no bound.
func Bounds() []time.Duration {
	bounds := make([]time.Duration, buckets-1)
	for i := range bounds {
		bounds[i] = firstBucket << i
	}
	return bounds
}

// bucketOf returns the bucket that a time is counted in.
func bucketOf(d time.Duration) int {
	return min(bits.Len64(uint64(max(0, d-1))/uint64(firstBucket)), buckets-1)
}

// Figures are what is counted of the calls at an endpoint. A call that is tried at two endpoints counts at both, unless
// the first cannot have seen it.
type Figures struct {
	Calls    uint64 // ended
	InFlight int
	// Failures by status code; those of code 0 are no failures, and not counted.
	Failures  [Codes]uint64
	Retries   uint64 // calls that went on to another endpoint
	Ejections uint64
	Latency   Latency
}

// Latency is how long calls took.
type Latency struct {
	// Counts of the calls by bucket, see [Bounds]; not summed up.
	Counts [buckets]uint64
	Sum    time.Duration
}

// Failed is the number of all failures.
func (f *Figures) Failed() uint64 {
	var sum uint64
	for _, n := range f.Failures {
		sum += n
	}
	return sum
}

// Add adds up.
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

// figures are Figures while they are counted. They outlive the endpoint: a worker that is started again counts on.
type figures struct {
	inFlight int // under the service's lock

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

// read is called with the service's lock held.
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
	// keepMost bounds the endpoints of which a service keeps figures apart,
	keepMost = 4096
	// and keepRetired the services that are kept for their figures when nobody offers them any more.
	keepRetired = 256
)

// keep returns the figures of the endpoint with that key, which may have been there before.
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
