package api

import (
	"fmt"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/adminpb"
)

// MaxFollowed is the maximum number of streams of one user at the admin service that may stay open for as long as the
// user likes: of logs, events and services. Each keeps some hundred kilobytes at most for a client that does not read.
const MaxFollowed = 256

// endless are the methods with such streams. The streams of acts are not limited: each of them ends.
var endless = map[string]bool{
	adminpb.Admin_Logs_FullMethodName:     true,
	adminpb.Admin_Events_FullMethodName:   true,
	adminpb.Registry_Watch_FullMethodName: true,
}

// followers counts the endless streams of each user.
type followers struct {
	mu   sync.Mutex
	open map[uint32]int // by uid
}

// enter adds a stream. It returns RESOURCE_EXHAUSTED if the user has too many. The caller must call leave when the
// stream has ended.
func (f *followers) enter(uid uint32) (leave func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open[uid] >= MaxFollowed {
		return nil, status.Error(codes.ResourceExhausted, fmt.Sprintf(
			"user %d has %d streams of logs, events and services open, which is the maximum", uid, MaxFollowed))
	}
	if f.open == nil {
		f.open = map[uint32]int{}
	}
	f.open[uid]++
	return func() { f.leave(uid) }, nil
}

func (f *followers) leave(uid uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open[uid]--; f.open[uid] == 0 {
		delete(f.open, uid)
	}
}
