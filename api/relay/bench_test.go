package relay

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	testpb "google.golang.org/grpc/interop/grpc_testing"
)

// BenchmarkRelayUnary compares calls of 64 bytes over the relay with direct calls, all in one process. If both use
// the whole machine, the difference is the cost of the relay.
func BenchmarkRelayUnary(b *testing.B) {
	ep, _ := startBackend(b, echo{})
	_, addr := startRelay(b, Options{}, ep)
	for _, callers := range []int{1, 8, 64, 256} {
		for _, way := range []struct{ name, address string }{{"direct", ep.Address}, {"relay", addr}} {
			b.Run(fmt.Sprintf("%d/%s", callers, way.name), func(b *testing.B) {
				benchmarkCalls(b, dial(b, way.address), callers)
			})
		}
	}
}

func benchmarkCalls(b *testing.B, client testpb.TestServiceClient, callers int) {
	in := simple(64)
	if _, err := client.UnaryCall(context.Background(), in); err != nil {
		b.Fatal(err)
	}
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := client.UnaryCall(context.Background(), in); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
