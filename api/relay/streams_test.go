package relay

import (
	"context"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/core-tools/hsu-master/supervisor/services"
)

// holder answers streams with headers, and with nothing more until they are ended.
type holder struct{ echo }

func (holder) FullDuplexCall(s testpb.TestService_FullDuplexCallServer) error {
	if _, err := s.Recv(); err != nil {
		return err
	}
	if err := s.SendHeader(nil); err != nil {
		return err
	}
	<-s.Context().Done()
	return nil
}

// The part of a request that is kept for a second attempt is no longer counted once it has been released.
func TestBudgetIsGivenBackWhenTheAnswerBegins(t *testing.T) {
	e, _ := startBackend(t, holder{})
	r, address := startRelay(t, Options{}, e)
	c := dial(t, address)
	ctx, cancel := context.WithCancel(timeout(t))
	defer cancel()
	for range 2 * budgetUp / 60_000 {
		s, err := c.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(&testpb.StreamingOutputCallRequest{
			Payload: &testpb.Payload{Body: make([]byte, 60_000)},
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Header(); err != nil {
			t.Fatal(err)
		}
	}
	if n := r.Stats().Queued; n != 0 {
		t.Errorf("%d bytes are counted, and none waits", n)
	}
	if _, err := c.UnaryCall(ctx, &testpb.SimpleRequest{
		Payload: &testpb.Payload{Body: make([]byte, 3<<20)},
	}); err != nil {
		t.Errorf("a call beside idle streams: %v", err)
	}
}

// Two calls share one stream: the end of either wakes the other, whenever that began to wait.
func TestCallThatBeginsToWaitIsWoken(t *testing.T) {
	e, _ := startBackend(t, echo{}, grpc.MaxConcurrentStreams(1))
	_, address := startRelay(t, Options{MaxBackendConns: 1, MaxWait: patience}, e)
	callers := [2]testpb.TestServiceClient{dial(t, address), dial(t, address)}
	for round := range 2000 {
		var wg sync.WaitGroup
		for _, c := range callers {
			wg.Go(func() {
				if _, err := c.UnaryCall(context.Background(), &testpb.SimpleRequest{}); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
	}
}

// Canceled calls take no place in the queue for a stream.
func TestCallsThatGaveUpDoNotWait(t *testing.T) {
	e, _ := startBackend(t, holder{}, grpc.MaxConcurrentStreams(1))
	r, address := startRelay(t, Options{MaxBackendConns: 1}, e)
	c := dial(t, address)
	ctx, cancel := context.WithCancel(timeout(t))
	defer cancel()
	s, err := c.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Header(); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		short, cancel := context.WithTimeout(ctx, time.Millisecond)
		_, _ = c.UnaryCall(short, &testpb.SimpleRequest{})
		cancel()
	}
	p := r.pools.of(e, nil)
	awaitThat(t, "calls wait, although all have given up", func() bool { return p.waiters() == 0 },
		func() any { return p.waiters() })
}

// A server that only refuses streams beyond its limit has not failed.
func TestRefusedStreamsEjectNobody(t *testing.T) {
	registry := services.New(services.Options{})
	one, _ := startBackend(t, echo{}, grpc.MaxConcurrentStreams(2))
	other, _ := startBackend(t, echo{}, grpc.MaxConcurrentStreams(2))
	_, address := startRelay(t, Options{Registry: registry}, one, other)
	c := dial(t, address)
	var wg sync.WaitGroup
	for range 60 {
		wg.Go(func() {
			if _, err := c.UnaryCall(context.Background(), &testpb.SimpleRequest{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, e := range registry.Service(serviceName).Info().Endpoints {
		if e.Ejections > 0 {
			t.Errorf("%s was ejected", e.Address)
		}
	}
}
