package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/core-tools/hsu-master/api/proto"
)

type (
	// loadOrder asks for load over a time, or, without one, for the percentiles of
	// all calls since the last such order.
	loadOrder  struct{ For time.Duration }
	loadAnswer struct {
		Calls    int64
		Took     time.Duration
		P50, P99 time.Duration
	}
)

// childLoad calls ProcessData as fast as it is answered: args are the address,
// the number of callers and the number of connections that they share.
func childLoad(c *childIO) error {
	callers, err := strconv.Atoi(c.args[1])
	if err != nil {
		return fmt.Errorf("callers: %w", err)
	}
	conns, err := strconv.Atoi(c.args[2])
	if err != nil {
		return fmt.Errorf("connections: %w", err)
	}
	l := &load{latencies: make([][]time.Duration, callers)}
	for range conns {
		conn, err := grpc.NewClient(c.args[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		l.clients = append(l.clients, proto.NewMyBusinessServiceClient(conn))
	}
	return orders(c, func(order loadOrder) (loadAnswer, error) {
		if order.For == 0 {
			return l.summary(), nil
		}
		return l.run(order.For)
	})
}

type load struct {
	clients   []proto.MyBusinessServiceClient
	latencies [][]time.Duration // of each caller
}

// run has every caller call until the time is over; it ends with the last call.
// A call that fails ends it: a rate with errors in it says nothing.
func (l *load) run(d time.Duration) (loadAnswer, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	var over atomic.Bool
	defer time.AfterFunc(d, func() { over.Store(true) }).Stop()
	counts := make([]int64, len(l.latencies))
	var wg sync.WaitGroup
	started := time.Now()
	for i := range l.latencies {
		wg.Go(func() {
			client := l.clients[i%len(l.clients)]
			req := &proto.ProcessRequest{Data: "the data of a request"}
			for !over.Load() {
				called := time.Now()
				resp, err := client.ProcessData(ctx, req)
				if err == nil && !resp.GetSuccess() {
					err = fmt.Errorf("not processed: %q", resp.GetResult())
				}
				if err != nil {
					cancel(err)
					return
				}
				l.latencies[i] = append(l.latencies[i], time.Since(called))
				counts[i]++
			}
		})
	}
	wg.Wait()
	answer := loadAnswer{Took: time.Since(started)}
	for _, n := range counts {
		answer.Calls += n
	}
	return answer, context.Cause(ctx)
}

func (l *load) summary() loadAnswer {
	all := slices.Concat(l.latencies...)
	slices.Sort(all)
	for i := range l.latencies {
		l.latencies[i] = l.latencies[i][:0]
	}
	return loadAnswer{Calls: int64(len(all)), P50: quantile(all, 0.5), P99: quantile(all, 0.99)}
}
