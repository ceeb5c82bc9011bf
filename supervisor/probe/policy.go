package probe

import (
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/core-tools/hsu-master/supervisor/process"
)

// Policy is how often an endpoint is checked, and which missed checks count.
type Policy struct {
	Interval time.Duration // between two checks
	Timeout  time.Duration // of a check
	// Missed is the number of checks missed in a row that make an endpoint unhealthy.
	Missed int
	// Passes is the number of checks passed in a row that make an unhealthy endpoint healthy again.
	Passes int
	// Lateness indicates a loaded machine: if a check starts or ends late by more, a missed answer is no evidence
	// against the endpoint.
	Lateness time.Duration
}

// DefaultPolicy returns the policy of workers and registered endpoints.
func DefaultPolicy() Policy {
	return Policy{
		Interval: 5 * time.Second, Timeout: 2 * time.Second, Missed: 3, Passes: 1, Lateness: 500 * time.Millisecond,
	}
}

// Local reports whether a check failed because this process could not even open a connection, so that it says nothing
// about the endpoint. gRPC gives the reason as text only.
func Local(err error) bool {
	text := err.Error()
	return process.Exhausted(err) || strings.Contains(text, "while dialing") &&
		slices.ContainsFunc(process.ExhaustedErrors, func(errno syscall.Errno) bool {
			return strings.HasSuffix(strings.TrimRight(text, `"`), errno.Error())
		})
}
