package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	gproto "google.golang.org/protobuf/proto"

	"github.com/core-tools/hsu-master/api/proto"
)

type (
	// loadOrder requests load for a duration or, with a zero duration, the percentiles of all calls since the last
	// such order.
	loadOrder  struct{ For time.Duration }
	loadAnswer struct {
		Calls    int64
		Took     time.Duration
		P50, P99 time.Duration
	}
)

// calls describe the calls of a load.
type calls struct {
	service        string // offers ProcessData; empty means MyBusinessService
	callers, conns int
	size           int // of a request, in bytes; 0 means a short one
	// secure is the certificate of the server, nil without TLS.
	secure *certificate
	// lean selects a client that costs less than grpc-go's. It has one call at a time on a connection.
	lean bool
}

// startLoad starts callers of address, which may be several addresses separated by commas.
func (l *lab) startLoad(address string, c calls) (*child, error) {
	service := cmp.Or(c.service, proto.MyBusinessService_ServiceDesc.ServiceName)
	part := "load"
	if c.lean {
		part = "lean"
	}
	return l.startChild(part, address, service,
		strconv.Itoa(c.callers), strconv.Itoa(c.conns), strconv.Itoa(c.size), c.secure.path())
}

// childLoad calls ProcessData as fast as it is answered. Its args are the address (or several, separated by commas,
// for the connections in turn), the service, the number of callers, the number of connections that they share, the
// size of a request, and the file with the certificate of the server, "" without TLS.
func childLoad(c *childIO) error {
	var numbers [3]int
	for i, arg := range c.args[2:5] {
		var err error
		if numbers[i], err = strconv.Atoi(arg); err != nil {
			return err
		}
	}
	l := &load{
		latencies: make([][]time.Duration, numbers[0]),
		method:    "/" + c.args[1] + "/ProcessData", data: "the data of a request",
	}
	if size := numbers[2]; size > 0 {
		l.data = sized(size)
	}
	addresses := strings.Split(c.args[0], ",")
	secured, err := clientCredentials(c.args[5])
	if err != nil {
		return err
	}
	for i := range numbers[1] {
		conn, err := grpc.NewClient(addresses[i%len(addresses)], grpc.WithTransportCredentials(secured),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(largestMessage)))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		l.conns = append(l.conns, conn)
		conn.Connect()
	}
	// Connect first, so that no measured call waits for its connection.
	ctx, cancel := context.WithTimeout(context.Background(), startPatience)
	defer cancel()
	for _, conn := range l.conns {
		for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
			if !conn.WaitForStateChange(ctx, state) {
				return fmt.Errorf("connect to %s: it is %s", conn.Target(), state)
			}
		}
	}
	return orders(c, func(order loadOrder) (loadAnswer, error) {
		if order.For == 0 {
			return l.summary(), nil
		}
		return l.run(order.For)
	})
}

// sized returns the data for a request of size bytes on the wire.
func sized(size int) string {
	data := strings.Repeat("x", size)
	for len(data) > 0 && gproto.Size(&proto.ProcessRequest{Data: data}) > size {
		data = data[1:]
	}
	return data
}

type load struct {
	conns        []*grpc.ClientConn
	method, data string
	latencies    [][]time.Duration // by caller
}

// run makes every caller call until the time is over; it ends with the last call. A failed call ends the run,
// because a rate that includes errors is meaningless.
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
			conn := l.conns[i%len(l.conns)]
			req := &proto.ProcessRequest{Data: l.data}
			for !over.Load() {
				called := time.Now()
				resp := new(proto.ProcessResponse)
				err := conn.Invoke(ctx, l.method, req, resp, grpc.StaticMethod())
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
