package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/core-tools/hsu-master/api/adminpb"
)

// churners is the number of endpoints that register and leave each second.
const churners = 50

// The sides of a round with registrations: the same callers of the same master, in turn.
const (
	sideChurn  = iota // while endpoints register and leave
	sideAlone         // while no endpoint is registered
	sideJoined        // while endpoints are registered and stay: as many as there are with sideChurn at a time
	sidesOfChurn
)

// forwardChurn measures calls of a service while endpoints of that service register and leave. They answer the calls
// that they get. A call that fails is an error.
func forwardChurn(ctx context.Context, l *lab) ([]row, error) {
	turn := l.span(time.Second, 500*time.Millisecond)
	result := make([]rates, sidesOfChurn)
	var registered series
	for round := range l.rounds {
		if err := l.awaitCalm(ctx); err != nil {
			return nil, err
		}
		sides, err := churnSides(ctx, l, &registered)
		if err != nil {
			return nil, err
		}
		if err := l.takeTurns(ctx, sides, round, turn, nil); err != nil {
			return nil, err
		}
		for i, s := range sides {
			result[i].add(s)
		}
		l.say("round %d of %d, %d endpoints:  register and leave %s, p99 %s  none %s, p99 %s  stay %s, p99 %s",
			round+1, l.rounds, churners,
			format(perSecond, result[sideChurn].perSecond[round]), format(seconds, result[sideChurn].p99[round]),
			format(perSecond, result[sideAlone].perSecond[round]), format(seconds, result[sideAlone].p99[round]),
			format(perSecond, result[sideJoined].perSecond[round]), format(seconds, result[sideJoined].p99[round]))
	}
	churn, alone, joined := &result[sideChurn], &result[sideAlone], &result[sideJoined]
	r := newRow(rowForwardChurn, churn.perSecond, alone.perSecond)
	r.productLatency, r.baselineLatency = churn.median(), alone.median()
	r.notes = append(r.notes,
		fmt.Sprintf("with %d endpoints that stay instead, the ratio is %.2f, and p50 / p99 are %s",
			churners/2, joined.perSecond.over(alone.perSecond).median(), joined.median()),
		fmt.Sprintf("%s registrations succeeded; the master's CPU a call is %s, with those that stay %s, without %s",
			format(perSecond, registered.median()), format(seconds, churn.cpu.median()),
			format(seconds, joined.cpu.median()), format(seconds, alone.cpu.median())))
	return []row{r, newRow(rowForwardChurnP99, churn.p99, alone.p99)}, nil
}

// churnSides starts the servers of a round: a gateway with one worker, and the endpoints.
func churnSides(ctx context.Context, l *lab, registered *series) (sides []*side, err error) {
	g, err := l.startGateway(ctx, 1, nil)
	if err != nil {
		return nil, err
	}
	for range sidesOfChurn {
		sides = append(sides, &side{pids: []int{g.pid()}})
	}
	sides[0].server = g
	defer func() {
		if err != nil {
			err = errors.Join(err, stopAll(sides))
		}
	}()
	endpoints, err := l.startChild("churn", filepath.Join(g.dir, "run", "admin.sock"), serviceForward)
	if err != nil {
		return nil, err
	}
	sides[1].server = endpoints
	for _, s := range sides {
		s.load, err = l.startLoad(g.address, calls{service: serviceForward, callers: 64, conns: 4, size: small})
		if err != nil {
			return nil, err
		}
	}
	sides[sideChurn].around = func(ctx context.Context, d time.Duration, turn func() error) error {
		var answer churnAnswer
		asked := make(chan error, 1)
		go func() { asked <- endpoints.ask(ctx, churnOrder{For: d}, &answer) }()
		err := errors.Join(turn(), <-asked)
		if err == nil {
			*registered = append(*registered, float64(answer.Registered)/answer.Took.Seconds())
		}
		return err
	}
	sides[sideJoined].around = func(ctx context.Context, _ time.Duration, turn func() error) error {
		if err := endpoints.ask(ctx, churnOrder{Join: churners / 2}, &churnAnswer{}); err != nil {
			return err
		}
		return errors.Join(turn(), endpoints.ask(ctx, churnOrder{}, &churnAnswer{}))
	}
	return sides, nil
}

type (
	// churnOrder makes the endpoints register and leave for a while or, with Join, makes so many register. An empty one
	// makes those leave.
	churnOrder struct {
		For  time.Duration
		Join int
	}
	churnAnswer struct {
		Registered int
		Took       time.Duration
	}
)

// childChurn serves the endpoints. Its args are the admin socket of the master and the service.
func childChurn(c *childIO) (err error) {
	conn, err := grpc.NewClient("unix:"+c.args[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	e := &endpoints{registry: adminpb.NewRegistryClient(conn), service: c.args[1]}
	server := newServer()
	var serving sync.WaitGroup
	defer serving.Wait()
	defer server.Stop()
	for range churners {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		e.addresses = append(e.addresses, listener.Addr().String())
		serving.Go(func() { _ = server.Serve(listener) }) // until Stop
	}
	return orders(c, func(order churnOrder) (churnAnswer, error) {
		ctx, cancel := context.WithTimeout(context.Background(), startPatience)
		defer cancel()
		started := time.Now()
		n := 0
		var err error
		switch {
		case order.For > 0:
			n, err = e.churn(ctx, order.For)
		case order.Join > 0:
			n, err = order.Join, e.each(e.addresses[:order.Join], func(at string) error { return e.register(ctx, at) })
			e.joined = order.Join
		default:
			err = e.each(e.addresses[:e.joined], func(at string) error { return e.leave(ctx, at) })
		}
		return churnAnswer{n, time.Since(started)}, err
	})
}

type endpoints struct {
	registry  adminpb.RegistryClient
	service   string
	addresses []string
	joined    int
}

func (e *endpoints) register(ctx context.Context, address string) error {
	resp, err := e.registry.Register(ctx, &adminpb.RegisterRequest{Service: e.service, Address: address})
	if err == nil && !resp.GetEndpoint().GetHealthy() {
		err = errors.New(resp.GetEndpoint().GetReason())
	}
	if err != nil {
		return fmt.Errorf("register %s: %w", address, err)
	}
	return nil
}

func (e *endpoints) leave(ctx context.Context, address string) error {
	_, err := e.registry.Deregister(ctx, &adminpb.DeregisterRequest{Service: e.service, Address: address})
	if err != nil {
		return fmt.Errorf("deregister %s: %w", address, err)
	}
	return nil
}

func (e *endpoints) each(addresses []string, do func(address string) error) error {
	errs := make([]error, len(addresses))
	var all sync.WaitGroup
	for i, at := range addresses {
		all.Go(func() { errs[i] = do(at) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// churn has each endpoint register once a second and leave half a second later, the endpoints one after the other. It
// returns the number of registrations. All have left at the end.
func (e *endpoints) churn(ctx context.Context, d time.Duration) (int, error) {
	var registered atomic.Int64
	var all sync.WaitGroup
	errs := make([]error, len(e.addresses))
	begin := time.Now()
	end := begin.Add(d)
	for i, at := range e.addresses {
		all.Go(func() {
			next := begin.Add(time.Second * time.Duration(i) / churners)
			for ; next.Before(end) && errs[i] == nil; next = next.Add(time.Second) {
				leaves := next.Add(time.Second / 2)
				if leaves.After(end) {
					leaves = end
				}
				errs[i] = e.visit(ctx, at, next, leaves)
				registered.Add(1)
			}
		})
	}
	all.Wait()
	return int(registered.Load()), errors.Join(errs...)
}

// visit registers an endpoint at a time and deregisters it at another.
func (e *endpoints) visit(ctx context.Context, address string, from, until time.Time) error {
	if err := pause(ctx, time.Until(from)); err != nil {
		return err
	}
	if err := e.register(ctx, address); err != nil {
		return err
	}
	if err := pause(ctx, time.Until(until)); err != nil {
		return err
	}
	return e.leave(ctx, address)
}
