package store

import (
	"crypto/sha256"
	"time"
)

// Counted is notified of the outcome of a count. It is an alias, so that other packages can declare interfaces that
// include Count without importing this package.
type Counted = interface {
	// Counted is called once: with nil when the count is as durable as Options.Sync specifies, otherwise with the
	// error, which is ErrUnavailable or ErrClosed. After CountOnce it may also be ErrDuplicate or the error of
	// CheckRequestID.
	Counted(err error)
}

// pendingResult is a request with an id that is about to be stored.
type pendingResult struct {
	Result
	done Counted
	size int64
	err  error // valid after its commit was tried
}

// newPending returns the request with its result, of whose outcome done is to be notified. A response that is too large
// is left out of the result.
func (x *results) newPending(r Result, done Counted) *pendingResult {
	if len(r.Response) > MaxResponse {
		r.Response, r.LeftOut = nil, true
	}
	if r.Stored.IsZero() {
		r.Stored = time.Now()
	}
	return &pendingResult{
		Result: r, done: done,
		size: int64(len(r.ID) + len(r.Method) + len(r.Response) + sha256.Size + len(x.bootID) + resultOverhead),
	}
}

// nextResults splits list after the most results that one transaction should store.
func nextResults(list []*pendingResult) (some, more []*pendingResult) {
	var size int64
	for i, r := range list {
		if size += r.size; i == resultsPerCommit || i > 0 && size > resultBytesPerCommit {
			return list[:i], list[i:]
		}
	}
	return list, nil
}
