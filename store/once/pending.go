package once

import (
	"crypto/sha256"
	"time"

	"github.com/core-tools/hsu-master/store/records"
)

// Counted is notified of the outcome of a count. It is an alias, so that other packages can declare interfaces that
// include Count without importing this package.
type Counted = interface {
	// Counted is called once: with nil when the count is as durable as Options.Sync specifies, otherwise with the
	// error, which is ErrUnavailable or ErrClosed. After CountOnce it may also be ErrDuplicate or the error of
	// CheckRequestID.
	Counted(err error)
}

// Pending is a request with an id that is about to be stored.
type Pending struct {
	records.Result
	Done Counted
	Size int64
	Err  error // valid after its commit was tried
}

// NewPending returns the request with its result, of whose outcome done is to be notified. A response that is too large
// is left out of the result.
func (x *Index) NewPending(r records.Result, done Counted) *Pending {
	if len(r.Response) > records.MaxResponse {
		r.Response, r.LeftOut = nil, true
	}
	if r.Stored.IsZero() {
		r.Stored = time.Now()
	}
	return &Pending{
		Result: r, Done: done,
		Size: int64(len(r.ID) + len(r.Method) + len(r.Response) + sha256.Size + len(x.BootID) + resultOverhead),
	}
}

// NextResults splits list after the most results that one transaction should store.
func NextResults(list []*Pending) (some, more []*Pending) {
	var size int64
	for i, r := range list {
		if size += r.Size; i == ResultsPerCommit || i > 0 && size > ResultBytesPerCommit {
			return list[:i], list[i:]
		}
	}
	return list, nil
}
