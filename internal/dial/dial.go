// Package dial configures how gRPC connections are dialed, so that none of them waits for gRPC's default backoff.
// That is made for the internet: after the first refused dial it waits a whole second, while a server that was
// just started on this host listens within milliseconds.
package dial

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// first is the delay after the first failed dial.
const first = 20 * time.Millisecond

// Retry returns the option for redialing a lost or refused connection: first after 20 ms, then with growing delays
// up to most. One attempt may take up to within.
func Retry(most, within time.Duration) grpc.DialOption {
	return grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: first, Multiplier: 1.6, Jitter: 0.2, MaxDelay: most},
		MinConnectTimeout: within,
	})
}
