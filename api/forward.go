package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	protobuf "google.golang.org/protobuf/proto"

	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/api/relay/protocol"
	"github.com/core-tools/hsu-master/internal/fair"
	"github.com/core-tools/hsu-master/internal/rpc"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/services"
)

const (
	// mostAttempts and mostIdempotent bound how often one request is sent to workers, without and with an id.
	mostAttempts   = 2
	mostIdempotent = 5
	// firstPause is the pause before a lost worker is tried again; each further pause is twice as long. An untried
	// worker is tried without a pause.
	firstPause = 25 * time.Millisecond
)

var errTooLarge = errors.New("message of the request is larger")

// process forwards the request to a worker, or processes it if the master has no workers. The relay forwards most
// requests; those that come here have an id, come from the admin socket, or find no endpoint of the service.
func (b *Business) process(
	ctx context.Context, req *proto.ProcessRequest, idempotent bool,
) (*proto.ProcessResponse, error) {
	if b.pool.Standalone(businessName) {
		return Process(req), nil
	}
	return b.forward(ctx, req, idempotent)
}

// forward sends the request to a worker. If the worker is lost before it answers, and [mayTryAgain] permits it, the
// request is sent to another worker; an idempotent one also to the same worker when it is back.
func (b *Business) forward(
	ctx context.Context, req *proto.ProcessRequest, idempotent bool,
) (*proto.ProcessResponse, error) {
	key, limit, err := b.treat(ctx, req)
	if err != nil {
		return nil, err
	}
	pick, err := b.acquire(ctx, key)
	if err != nil {
		return nil, err
	}
	var tried []string
	for pause := firstPause; ; {
		a := send(ctx, pick, req, limit)
		again, budget := mayTryAgain(a, len(tried)+1, idempotent)
		again = again && (!budget || pick.Retry())
		if a.end(pick, again); !again {
			return a.result(ctx)
		}
		tried = append(tried, pick.Worker())
		if pick, err = b.pool.TryAcquire(businessName, key, tried...); err == nil {
			continue
		}
		if !idempotent {
			return a.result(ctx)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		pause *= 2
		if pick, err = b.acquire(ctx, key); err != nil {
			return nil, err
		}
	}
}

// mayTryAgain reports whether a request may be sent again after the given attempt, and whether that takes from the
// service's retry budget. attempts includes this one. An attempt that no worker has seen has cost the workers nothing,
// so another one adds no load.
func mayTryAgain(a attempt, attempts int, idempotent bool) (again, budget bool) {
	most := mostAttempts
	if idempotent {
		most = mostIdempotent
	}
	if !a.lost || attempts >= most || !a.unseen && !idempotent {
		return false, false
	}
	return true, !a.unseen
}

// treat applies the service's policy to the request, as the relay does for the requests that it forwards itself.
// key is the affinity key for choosing the worker. limit bounds the size of the answer.
func (b *Business) treat(
	ctx context.Context, req *proto.ProcessRequest,
) (key string, limit []grpc.CallOption, err error) {
	policy := b.pool.Policy(businessName)
	if most := policy.MaxMessage; most > 0 {
		if protobuf.Size(req) > most {
			return "", nil, fmt.Errorf("%w than %d bytes", errTooLarge, most)
		}
		limit = append(limit, grpc.MaxCallRecvMsgSize(most))
	}
	if values := metadata.ValueFromIncomingContext(ctx, policy.Affinity); len(values) > 0 {
		key = values[0]
	}
	return key, limit, nil
}

// acquire picks a worker on behalf of the client that the relay has named in the metadata. Queued calls and
// calls in flight are shared fairly between clients.
func (b *Business) acquire(ctx context.Context, key string) (*supervisor.Pick, error) {
	if names := metadata.ValueFromIncomingContext(ctx, protocol.Client); len(names) == 1 {
		peer, _, _ := strings.Cut(names[0], ", ")
		ctx = fair.NewContext(ctx, fair.Client{Peer: peer, Conn: names[0]})
	}
	return b.pool.Acquire(ctx, businessName, key)
}

// attempt is the outcome of sending a request to a worker.
type attempt struct {
	resp            *proto.ProcessResponse
	header, trailer metadata.MD
	err             error
	lost            bool // the worker exited, or refused the call, before it answered
	refused         bool // lost, and the worker did not accept the call
	unseen          bool // lost, and the worker cannot have seen the request
}

// send sends the request to the picked worker. The caller must end the pick with [attempt.end].
func send(
	ctx context.Context, pick *supervisor.Pick, req *proto.ProcessRequest, limit []grpc.CallOption,
) (a attempt) {
	incoming, _ := metadata.FromIncomingContext(ctx)
	var reached peer.Peer // stays empty if there was no connection to send on
	a.resp, a.err = proto.NewMyBusinessServiceClient(pick.Conn()).ProcessData(
		metadata.NewOutgoingContext(ctx, passed(incoming)), req,
		append(limit, grpc.Peer(&reached), grpc.Header(&a.header), grpc.Trailer(&a.trailer))...)
	code := status.Code(a.err)
	a.lost = ctx.Err() == nil && (code == codes.Unavailable || code == codes.Canceled)
	a.refused = a.lost && errors.Is(a.err, rpc.ErrRefused)
	a.unseen = a.refused || a.lost && code == codes.Unavailable && reached.Addr == nil
	return a
}

// end ends the pick. It counts a lost call as a failure of the worker, unless the worker refused the call or
// its own status arrived, which comes at least with a content-type.
func (a *attempt) end(pick *supervisor.Pick, retried bool) {
	pick.EndWith(services.Outcome{
		Code: uint32(status.Code(a.err)), Failed: a.lost && !a.refused && len(a.header)+len(a.trailer) == 0,
		Retried: retried, Unseen: retried && a.unseen,
	})
}

// result returns the answer for the caller, and sets the worker's metadata on the call.
func (a *attempt) result(ctx context.Context) (*proto.ProcessResponse, error) {
	// These fail if ctx is not of a served call, as in a test, or if the call has ended. Neither matters.
	_ = grpc.SetHeader(ctx, passed(a.header))
	_ = grpc.SetTrailer(ctx, passed(a.trailer))
	return a.resp, a.err
}

// passed returns md without the entries that belong to a single connection.
func passed(md metadata.MD) metadata.MD {
	out := make(metadata.MD, len(md))
	for name, values := range md {
		switch {
		case strings.HasPrefix(name, ":"):
		case strings.HasPrefix(name, "grpc-") && name != "grpc-trace-bin" && name != "grpc-tags-bin":
		case slices.Contains(hopByHop, name):
		default:
			out[name] = values
		}
	}
	return out
}

// hopByHop lists the headers that each side of a forwarded call sets for itself.
var hopByHop = []string{
	"connection", "content-length", "content-type", "host", "keep-alive", "proxy-connection",
	"te", "trailer", "transfer-encoding", "upgrade", "user-agent", protocol.Client,
}
