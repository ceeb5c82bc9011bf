package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/api/proto"
)

// The sides of a forwarded call: the same worker, called directly and through each of the proxies, all at the same
// time.
const (
	sideDirect  = "direct"
	sideProduct = "hsu-master"
	// sideCopy copies bytes without reading them: the minimal cost of one more process on the path.
	sideCopy = "bare copy"
)

// contest is one set of calls that several sides make in turn.
type contest struct {
	sides []string
	calls calls
	turn  time.Duration
	flags []string // of the master
}

// contestants starts the servers of a round: the gateway, its worker and the peers.
func (l *lab) contestants(ctx context.Context, c contest) (sides []*side, err error) {
	g, err := l.startGateway(ctx, 1, c.calls.secure, c.flags...)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, stopAll(sides), g.stop())
		}
	}()
	for _, name := range c.sides {
		s := &side{}
		at := g.workers[0]
		switch name {
		case sideDirect:
		case sideProduct:
			at, s.server, s.pids = g.address, g, []int{g.pid()}
		default:
			p, err := l.startPeer(ctx, name, g.workers[0], c.calls.secure)
			if err != nil {
				return sides, err
			}
			at, s.server, s.pids = p.address, p, p.pids
		}
		sides = append(sides, s)
		if s.load, err = l.startLoad(at, c.calls); err != nil {
			return sides, err
		}
	}
	return sides, nil
}

// play runs the rounds of a contest.
func (l *lab) play(ctx context.Context, c contest) (map[string]*rates, error) {
	result := make(map[string]*rates)
	for _, name := range c.sides {
		result[name] = &rates{}
	}
	for round := range l.rounds {
		if err := l.awaitCalm(ctx); err != nil {
			return nil, err
		}
		sides, err := l.contestants(ctx, c)
		if err != nil {
			return nil, err
		}
		if err := l.takeTurns(ctx, sides, round, c.turn, nil); err != nil {
			return nil, err
		}
		var line strings.Builder
		for i, name := range c.sides {
			result[name].add(sides[i])
			fmt.Fprintf(&line, "  %s %s using %s",
				name, format(perSecond, result[name].perSecond[round]), format(seconds, result[name].cpu[round]))
		}
		l.say("round %d of %d, %d callers of %d bytes:%s",
			round+1, l.rounds, c.calls.callers, c.calls.size, line.String())
	}
	return result, nil
}

// peersHere returns the available peers, and the errors of the others.
func (l *lab) peersHere(ctx context.Context) (names []string, missing error) {
	for _, name := range []string{peerNginx, peerHAProxy} {
		if _, err := l.findPeer(ctx, name); err != nil {
			missing = errors.Join(missing, err)
			continue
		}
		names = append(names, name)
	}
	return names, missing
}

const (
	small = 64      // bytes of a request
	large = 4 << 10 // bytes of a request
	huge  = 10_000_000
	// largestMessage is the limit of the bench's client and worker, and of the master for huge requests.
	largestMessage = 32 << 20
)

func forward1(ctx context.Context, l *lab) ([]row, error) {
	return forward(ctx, l, 1, small, rowForward1, "")
}

func forward8(ctx context.Context, l *lab) ([]row, error) {
	return forward(ctx, l, 8, small, rowForward8, "")
}

func forward64(ctx context.Context, l *lab) ([]row, error) {
	return forward(ctx, l, 64, small, rowForward64, rowForwardCPU)
}

func forward256(ctx context.Context, l *lab) ([]row, error) {
	return forward(ctx, l, 256, small, rowForward256, "")
}

// forwardHuge measures messages that are far larger than any buffer or window on their way.
func forwardHuge(ctx context.Context, l *lab) ([]row, error) {
	return forward(ctx, l, 4, huge, rowForwardHuge, rowForwardCPUHuge)
}

func forward4K(ctx context.Context, l *lab) ([]row, error) {
	return forward(ctx, l, 64, large, "", rowForwardCPU4K)
}

// forward measures relayed calls: rateRow against calling the worker directly, cpuRow against HAProxy.
func forward(ctx context.Context, l *lab, callers, size int, rateRow, cpuRow string) ([]row, error) {
	peers, missing := l.peersHere(ctx)
	result, err := l.play(ctx, contest{
		sides: append([]string{sideDirect, sideProduct}, peers...),
		calls: calls{service: serviceForward, callers: callers, conns: max(1, callers/callersPerConn), size: size},
		turn:  l.callTurn(),
		flags: []string{"--service-option", fmt.Sprintf("%s:max-message=%dMiB", serviceForward, largestMessage>>20)},
	})
	if err != nil {
		return nil, err
	}
	direct, product := result[sideDirect], result[sideProduct]
	var rows []row
	if rateRow != "" {
		r := newRow(rateRow, product.perSecond, direct.perSecond)
		r.productLatency, r.baselineLatency = product.median(), direct.median()
		for _, name := range peers {
			r.beside(peerNames[name], result[name].perSecond.over(direct.perSecond))
			r.notes = append(r.notes, fmt.Sprintf("%s answers %s, p50 / p99 %s", peerNames[name],
				format(perSecond, result[name].perSecond.median()), result[name].median()))
		}
		if missing != nil {
			r.missing = missing.Error()
		}
		rows = append(rows, r)
	}
	if cpuRow != "" {
		haproxy := result[peerHAProxy]
		if haproxy == nil {
			r := unmeasured(cpuRow, missing.Error())
			r.product = product.cpu
			return append(rows, r), nil
		}
		r := newRow(cpuRow, product.cpu, haproxy.cpu)
		if nginx := result[peerNginx]; nginx != nil {
			r.notes = append(r.notes, "nginx uses "+format(seconds, nginx.cpu.median()))
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func forwardCounted64(ctx context.Context, l *lab) ([]row, error) {
	return forwardCounted(ctx, l, 64, rowForwardCounted64)
}

func forwardCounted256(ctx context.Context, l *lab) ([]row, error) {
	return forwardCounted(ctx, l, 256, rowForwardCounted256)
}

// forwardCounted measures the cost of counting a call before its answer is sent: the same method of the same
// worker, through the same master, under a name that is counted and one that is not.
func forwardCounted(ctx context.Context, l *lab, callers int, key string) ([]row, error) {
	services := []string{proto.MyBusinessService_ServiceDesc.ServiceName, serviceForward}
	turn := l.callTurn()
	result := []*rates{{}, {}}
	for round := range l.rounds {
		if err := l.awaitCalm(ctx); err != nil {
			return nil, err
		}
		g, err := l.startGateway(ctx, 1, nil)
		if err != nil {
			return nil, err
		}
		sides := []*side{{server: g, pids: []int{g.pid()}}, {pids: []int{g.pid()}}}
		for i, s := range sides {
			if s.load, err = l.startLoad(g.address, calls{
				service: services[i], callers: callers, conns: max(1, callers/callersPerConn), size: small,
			}); err != nil {
				return nil, errors.Join(err, stopAll(sides))
			}
		}
		if err := l.takeTurns(ctx, sides, round, turn, nil); err != nil {
			return nil, err
		}
		for i, s := range sides {
			result[i].add(s)
		}
		l.say("round %d of %d, %d callers:  counted %s  not counted %s", round+1, l.rounds, callers,
			format(perSecond, result[0].perSecond[round]), format(perSecond, result[1].perSecond[round]))
	}
	r := newRow(key, result[0].perSecond, result[1].perSecond)
	r.productLatency, r.baselineLatency = result[0].median(), result[1].median()
	r.notes = append(r.notes, fmt.Sprintf("the master's CPU a call is %s, and %s where it does not count",
		format(seconds, result[0].cpu.median()), format(seconds, result[1].cpu.median())))
	return []row{r}, nil
}

// forwardBulk measures one stream that carries much data in both directions.
func forwardBulk(ctx context.Context, l *lab) ([]row, error) {
	size := int64(1 << 30)
	if l.quick {
		size = 64 << 20
	}
	rates := map[string]series{}
	var growth series
	for round := range l.rounds {
		if err := l.awaitCalm(ctx); err != nil {
			return nil, err
		}
		one, grown, err := bulkRound(ctx, l, round, size)
		if err != nil {
			return nil, err
		}
		for side, rate := range one {
			rates[side] = append(rates[side], rate)
		}
		growth = append(growth, grown)
		l.say("round %d of %d, one stream:  direct %s  forwarded %s, RSS grew by %s  bare copy %s",
			round+1, l.rounds, format(perBytes, one[sideDirect]), format(perBytes, one[sideProduct]),
			format(bytesUnit, grown), format(perBytes, one[sideCopy]))
	}
	r := newRow(rowForwardBulk, rates[sideProduct], rates[sideDirect])
	r.beside(sideCopy, rates[sideCopy].over(rates[sideDirect]))
	return []row{r, newRow(rowForwardBulkRSS, growth, nil)}, nil
}

// bulkRound returns the bytes per second of each side, and the growth of the master's RSS.
func bulkRound(
	ctx context.Context, l *lab, round int, size int64,
) (rates map[string]float64, grown float64, err error) {
	g, err := l.startGateway(ctx, 1, nil)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, g.stop()) }()
	hop, address, err := l.startCopy(ctx, g.workers[0])
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, hop.stop()) }()
	sides := []struct{ name, address string }{{sideDirect, g.workers[0]}, {sideProduct, g.address}, {sideCopy, address}}
	rates = map[string]float64{}
	for i := range sides {
		side := sides[(i+round)%len(sides)]
		if rates[side.name], grown, err = bulkTurn(ctx, l, side.address, g.pid(), size, grown); err != nil {
			return nil, 0, err
		}
	}
	return rates, grown, nil
}

// bulkTurn returns the bytes per second, and the maximum growth of the process's RSS.
func bulkTurn(
	ctx context.Context, l *lab, address string, pid int, size int64, grown float64,
) (rate, most float64, err error) {
	c, err := l.startChild("bulk", address)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	var answer bulkAnswer
	if err := c.ask(ctx, bulkOrder{Bytes: bulkMessage}, &answer); err != nil {
		return 0, 0, err
	}
	before, err := residentSize(pid)
	if err != nil {
		return 0, 0, err
	}
	asked := make(chan error, 1)
	go func() { asked <- c.ask(ctx, bulkOrder{Bytes: size}, &answer) }()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for most = grown; ; {
		var ended bool
		select {
		case err = <-asked:
			ended = true
		case <-ticker.C:
		}
		now, sizeErr := residentSize(pid)
		most = max(most, now-before)
		if err = errors.Join(err, sizeErr); err != nil || ended {
			return float64(size) / answer.Took.Seconds(), most, err
		}
	}
}

const (
	idleStreams = 10_000
	// The master's limit is 1,024 per connection.
	streamsPerConn = 1000
)

// forwardIdle measures the cost of a stream without traffic.
func forwardIdle(ctx context.Context, l *lab) ([]row, error) {
	streams := idleStreams
	if l.quick {
		streams /= 5
	}
	var each series
	for round := range l.rounds {
		one, err := idleRound(ctx, l, streams)
		if err != nil {
			return nil, err
		}
		each = append(each, one)
		l.say("round %d of %d, %d idle streams:  %s each", round+1, l.rounds, streams, format(bytesUnit, one))
	}
	return []row{newRow(rowForwardIdle, each, nil)}, nil
}

func idleRound(ctx context.Context, l *lab, streams int) (each float64, err error) {
	g, err := l.startGateway(ctx, 1, nil)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, g.stop()) }()
	conns := max(1, streams/streamsPerConn)
	c, err := l.startChild("hold", g.address, strconv.Itoa(conns))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	// Establish the connections first, with the costs that come with the first stream.
	var sizes [2]float64
	for i, n := range []int{conns, streams} {
		if err := c.ask(ctx, holdOrder{Streams: n}, &done{}); err != nil {
			return 0, err
		}
		if err := pause(ctx, l.span(2*time.Second, 200*time.Millisecond)); err != nil {
			return 0, err
		}
		if sizes[i], err = residentSize(g.pid()); err != nil {
			return 0, err
		}
	}
	return (sizes[1] - sizes[0]) / float64(streams), nil
}

// forwardCrowd compares the rate of many clients with that of a few. Each client has a connection and one call at a
// time, since calls that share a connection share reads and writes, which makes them cheaper on every side. The
// client is a lean one: grpc-go's client costs more per connection than the measured server.
func forwardCrowd(ctx context.Context, l *lab) ([]row, error) {
	const workers, many, few = 10, 1000, 10
	turn := l.callTurn()
	contestants := []struct {
		name           string
		direct         bool
		callers, conns int
	}{
		{"1000 connections", false, many, many},
		{"10 connections", false, few, few},
		{"1000 to the workers", true, many, many},
		{"10 to the workers", true, few, few},
		{"10 callers of 1000", false, few, many},
		{"10 callers of 1000 to the workers", true, few, many},
	}
	result := make([]rates, len(contestants))
	for round := range l.rounds {
		if err := l.awaitCalm(ctx); err != nil {
			return nil, err
		}
		g, err := l.startGateway(ctx, workers, nil)
		if err != nil {
			return nil, err
		}
		sides := []*side{{server: g}}
		for i, c := range contestants {
			address := g.address
			if c.direct {
				address = strings.Join(g.workers, ",")
			}
			if i > 0 {
				sides = append(sides, &side{})
			}
			sides[i].pids = []int{g.pid()}
			if sides[i].load, err = l.startLoad(address, calls{
				service: serviceForward, callers: c.callers, conns: c.conns, size: small, lean: true,
			}); err != nil {
				return nil, errors.Join(err, stopAll(sides))
			}
		}
		if err := l.takeTurns(ctx, sides, round, turn, nil); err != nil {
			return nil, err
		}
		var line strings.Builder
		for i, s := range sides {
			result[i].add(s)
			fmt.Fprintf(&line, "  %s %s", contestants[i].name, format(perSecond, result[i].perSecond[round]))
		}
		l.say("round %d of %d, %d workers:%s", round+1, l.rounds, workers, line.String())
	}
	r := newRow(rowForwardCrowd, result[0].perSecond, result[1].perSecond)
	r.productLatency, r.baselineLatency = result[0].median(), result[1].median()
	r.beside("the same without a proxy", result[2].perSecond.over(result[3].perSecond))
	r.notes = append(r.notes,
		fmt.Sprintf("the master's CPU a call is %s, and %s with 10 connections",
			format(seconds, result[0].cpu.median()), format(seconds, result[1].cpu.median())),
		fmt.Sprintf("10 callers who use 1000 connections in turn have %.2f of what they have with 10 "+
			"(%.2f without a proxy), at %s of CPU a call",
			result[4].perSecond.over(result[1].perSecond).median(),
			result[5].perSecond.over(result[3].perSecond).median(),
			format(seconds, result[4].cpu.median())))
	return []row{r}, nil
}
