package relay

import (
	"time"

	"github.com/core-tools/hsu-master/api/relay/headers"
	"github.com/core-tools/hsu-master/api/relay/kept"
	"github.com/core-tools/hsu-master/api/relay/protocol"
	"github.com/core-tools/hsu-master/api/relay/retry"
)

// request is the part of a call's request, besides its data, that is needed after it has arrived.
type request struct {
	began      time.Duration // when the headers arrived
	deadline   retry.Deadline
	idempotent bool      // carries hsu-request-id: may be executed twice
	headers    kept.List // those that are passed on, until the backend has answered
}

// value returns the value of a metadata key. It shares the memory of the headers.
func (q *request) value(key string) string {
	l := headers.Of(q.headers.Bytes())
	value, _ := l.Get(key)
	return value
}

// headersAt returns the headers to send at now: those of the client, with the rest of its timeout if the call has
// waited here or is sent again.
func (q *request) headersAt(now time.Duration, again bool) []byte {
	left, ok := q.deadline.Left(now)
	if !ok || now-q.began < time.Millisecond && !again {
		return q.headers.Bytes()
	}
	var out headers.List
	l := headers.Of(q.headers.Bytes())
	for f := range l.All {
		if f.Name() == "grpc-timeout" {
			var text [12]byte
			out.AddBytes("grpc-timeout", protocol.AppendTimeout(text[:0], left))
			continue
		}
		out.AddField(f)
	}
	return out.Bytes()
}
