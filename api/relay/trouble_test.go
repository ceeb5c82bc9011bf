package relay

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/relay/protocol"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// Random calls are canceled at random, while backends come, disappear without notice or send GOAWAY. Each call ends
// with its own answer or with a true status, and nothing is left behind.
func TestRandomTrouble(t *testing.T) {
	registry := services.New(services.Options{})
	registry.Offer("the test", serviceName)
	r, addr := startRelay(t, Options{Registry: registry, MaxBackendConns: 2, lastStream: 501}, steady(t))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for seed := range uint64(2) {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(seed, 1))
			for {
				l := listen(t)
				s := grpc.NewServer(grpc.MaxConcurrentStreams(8))
				testpb.RegisterTestServiceServer(s, echo{})
				served := make(chan struct{})
				go func() {
					defer close(served)
					_ = s.Serve(l)
				}()
				ep := &services.Endpoint{Address: l.Addr().String()}
				registry.Add(ep, serviceName)
				select {
				case <-stop:
				case <-time.After(time.Duration(random.IntN(40)) * time.Millisecond):
				}
				if random.IntN(2) == 0 {
					go s.GracefulStop()
					time.Sleep(time.Duration(random.IntN(3)) * time.Millisecond) // the moment is the case
				}
				s.Stop()
				<-served
				registry.Remove(ep)
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	var callers sync.WaitGroup
	var ok, bad atomic.Int64
	end := time.Now().Add(1500 * time.Millisecond)
	for caller := range uint64(16) {
		client := dial(t, addr)
		callers.Go(func() {
			random := rand.New(rand.NewPCG(caller, 2))
			for time.Now().Before(end) {
				err := randomCall(client, random)
				switch code := status.Code(err); {
				case err == nil:
					ok.Add(1)
				case code == codes.Canceled, code == codes.DeadlineExceeded:
				case code == codes.Unavailable && strings.Contains(err.Error(), "lost"):
					bad.Add(1) // the call's backend has died
				case code == codes.Internal && strings.Contains(err.Error(), "INTERNAL_ERROR"):
					bad.Add(1) // within a message: no status can follow it
				default:
					t.Errorf("a call ended with %v", err)
				}
			}
		})
	}
	callers.Wait()
	close(stop)
	wg.Wait()
	t.Logf("%d calls well, %d lost with their backend; %+v", ok.Load(), bad.Load(), r.Stats())
	awaitNothingLeft(t, r)
}

func steady(t *testing.T) *services.Endpoint {
	t.Helper()
	ep, _ := startBackend(t, echo{})
	return ep
}

func randomCall(client testpb.TestServiceClient, random *rand.Rand) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if random.IntN(8) == 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(random.IntN(3000))*time.Microsecond)
		defer cancel()
	}
	if random.IntN(3) == 0 {
		ctx = metadata.AppendToOutgoingContext(ctx, protocol.RequestID, "r")
	}
	n := random.IntN(200)
	if random.IntN(4) == 0 {
		n = random.IntN(300_000)
	}
	if random.IntN(2) == 0 {
		out, err := client.UnaryCall(ctx, simple(n))
		if err == nil && len(out.GetPayload().GetBody()) != n {
			return status.Errorf(codes.DataLoss, "%d bytes for %d", len(out.GetPayload().GetBody()), n)
		}
		return err
	}
	s, err := client.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	for range random.IntN(10) {
		if err := s.Send(&testpb.StreamingOutputCallRequest{
			Payload: &testpb.Payload{Body: make([]byte, n)},
		}); err != nil {
			_, err = s.Recv()
			return err
		}
		out, err := s.Recv()
		if err != nil {
			return err
		}
		if len(out.GetPayload().GetBody()) != n {
			return status.Errorf(codes.DataLoss, "%d bytes for %d", len(out.GetPayload().GetBody()), n)
		}
	}
	if random.IntN(4) == 0 {
		return nil // canceled
	}
	_ = s.CloseSend()
	if _, err := s.Recv(); status.Code(err) != codes.Unknown || err.Error() != "EOF" {
		return err
	}
	return nil
}
