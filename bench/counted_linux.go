package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// side is a server with its own callers, and the measurements of one round.
type side struct {
	server stopper
	pids   []int // the processes whose processor time counts
	load   *child
	// around, if set, does something else while turn measures.
	around func(ctx context.Context, d time.Duration, turn func() error) error
	calls  int64
	took   time.Duration
	cpu    time.Duration
	percentiles
}

type stopper interface{ stop() error }

// mode is a way to count: none, or a value of --sync.
type mode string

const (
	uncounted mode = "uncounted"
	syncing   mode = "syncing" // not counted; each handler makes a record durable: the limit of always with 1 caller
	always    mode = "always"
	interval  mode = "interval"
)

// startSide starts a standalone server on a new state directory, and its callers.
func (l *lab) startSide(ctx context.Context, m mode, callers, conns int) (_ *side, err error) {
	dir, err := l.newFolder()
	if err != nil {
		return nil, err
	}
	s := &side{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	var at address
	if m == uncounted || m == syncing {
		c, err := l.startChild("uncounted", dir, string(m))
		if err != nil {
			return nil, err
		}
		s.server, s.pids = c, []int{c.pid()}
		if err := c.ask(ctx, done{}, &at); err != nil {
			return nil, err
		}
	} else {
		product, err := l.startMaster(dir, "--sync", string(m))
		if err != nil {
			return nil, err
		}
		s.server, s.pids = product, []int{product.pid()}
		at.Address = product.address
		if _, err := product.awaitServing(ctx); err != nil {
			return nil, err
		}
	}
	s.load, err = l.startLoad(at.Address, calls{callers: callers, conns: conns})
	return s, err
}

func (s *side) stop() error {
	var errs []error
	if s.load != nil {
		errs = append(errs, s.load.stop())
	}
	if s.server != nil {
		errs = append(errs, s.server.stop())
	}
	return errors.Join(errs...)
}

// warm lets connections, heaps and caches settle; its load is not measured.
func (s *side) warm(ctx context.Context, d time.Duration) error {
	var answer loadAnswer
	if err := s.load.ask(ctx, loadOrder{For: d}, &answer); err != nil {
		return err
	}
	return s.load.ask(ctx, loadOrder{}, &answer)
}

// turn adds one turn of load to the measurements.
func (s *side) turn(ctx context.Context, d time.Duration) error {
	if s.around == nil {
		return s.measure(ctx, d)
	}
	return s.around(ctx, d, func() error { return s.measure(ctx, d) })
}

func (s *side) measure(ctx context.Context, d time.Duration) error {
	before, err := cpuTimes(s.pids)
	if err != nil {
		return err
	}
	var answer loadAnswer
	if err := s.load.ask(ctx, loadOrder{For: d}, &answer); err != nil {
		return err
	}
	after, err := cpuTimes(s.pids)
	if err != nil {
		return err
	}
	s.calls += answer.Calls
	s.took += answer.Took
	s.cpu += after - before
	return nil
}

// finish fetches the percentiles of all turns.
func (s *side) finish(ctx context.Context) error {
	var answer loadAnswer
	if err := s.load.ask(ctx, loadOrder{}, &answer); err != nil {
		return err
	}
	if answer.Calls == 0 {
		return errors.New("no call was answered")
	}
	s.percentiles = percentiles{answer.P50.Seconds(), answer.P99.Seconds()}
	return nil
}

// rates are the results of all rounds for one mode.
type rates struct {
	perSecond, cpu series
	latencies
}

func (r *rates) add(s *side) {
	r.perSecond = append(r.perSecond, float64(s.calls)/s.took.Seconds())
	r.cpu = append(r.cpu, s.cpu.Seconds()/float64(s.calls))
	r.latencies.add(s.percentiles)
}

// race runs the rounds. Each round has fresh servers, all running at the same time, which are called in turn.
// extra, if set, is called in the middle of a round.
func (l *lab) race(
	ctx context.Context, modes []mode, callers, conns int, turn time.Duration, extra func(context.Context) error,
) (map[mode]*rates, error) {
	result := make(map[mode]*rates)
	for _, m := range modes {
		result[m] = &rates{}
	}
	for round := range l.rounds {
		if err := l.awaitCalm(ctx); err != nil {
			return nil, err
		}
		sides, err := l.raceRound(ctx, modes, callers, conns, round, turn, extra)
		if err != nil {
			return nil, err
		}
		for i, m := range modes {
			result[m].add(sides[i])
		}
		var line strings.Builder
		for _, m := range modes {
			r := result[m]
			fmt.Fprintf(&line, "  %s %s using %s",
				m, format(perSecond, r.perSecond[round]), format(seconds, r.cpu[round]))
		}
		l.say("round %d of %d, %d callers:%s", round+1, l.rounds, callers, line.String())
	}
	return result, nil
}

func (l *lab) raceRound(
	ctx context.Context, modes []mode, callers, conns, round int, turn time.Duration, extra func(context.Context) error,
) (sides []*side, err error) {
	for _, m := range modes {
		s, err := l.startSide(ctx, m, callers, conns)
		if err != nil {
			return nil, errors.Join(err, stopAll(sides))
		}
		sides = append(sides, s)
	}
	return sides, l.takeTurns(ctx, sides, round, turn, extra)
}

// stopAll stops the sides in reverse order, since a side without its own server calls that of an earlier one.
func stopAll(sides []*side) (err error) {
	for _, s := range slices.Backward(sides) {
		err = errors.Join(err, s.stop())
	}
	return err
}

// callTurn returns the length of a turn of calls. Many short turns balance a drift of the machine better than a few
// long ones.
func (l *lab) callTurn() time.Duration { return l.span(500*time.Millisecond, 200*time.Millisecond) }

// takeTurns measures the sides of one round and stops them.
func (l *lab) takeTurns(
	ctx context.Context, sides []*side, round int, turn time.Duration, extra func(context.Context) error,
) (err error) {
	defer func() { err = errors.Join(err, stopAll(sides)) }()
	for _, s := range sides {
		if err := s.warm(ctx, l.span(300*time.Millisecond, 100*time.Millisecond)); err != nil {
			return err
		}
	}
	for i, which := range turns(len(sides), round) {
		if i == len(sides) && extra != nil {
			if err := extra(ctx); err != nil {
				return err
			}
		}
		if err := sides[which].turn(ctx, turn); err != nil {
			return err
		}
	}
	for _, s := range sides {
		if err := s.finish(ctx); err != nil {
			return err
		}
	}
	return nil
}

// callersPerConn is how many callers share a connection: a program with many calls typically has one connection and
// many callers.
const callersPerConn = 16

func counted64(ctx context.Context, l *lab) ([]row, error) {
	return counted(ctx, l, 64, map[mode]string{always: rowAlways64, interval: rowInterval64}, rowCPU)
}

func counted256(ctx context.Context, l *lab) ([]row, error) {
	return counted(ctx, l, 256, map[mode]string{always: rowAlways256, interval: rowInterval256}, "")
}

// counted measures the modes against not counting. cpuRow is the row for mode always.
func counted(ctx context.Context, l *lab, callers int, keys map[mode]string, cpuRow string) ([]row, error) {
	modes := []mode{uncounted}
	for _, m := range []mode{always, interval} {
		if l.wants[keys[m]] || m == always && l.wants[cpuRow] {
			modes = append(modes, m)
		}
	}
	turn := l.callTurn()
	result, err := l.race(ctx, modes, callers, max(1, callers/callersPerConn), turn, nil)
	if err != nil {
		return nil, err
	}
	base := result[uncounted]
	var rows []row
	for _, m := range modes[1:] {
		r := newRow(keys[m], result[m].perSecond, base.perSecond)
		r.productLatency, r.baselineLatency = result[m].median(), base.median()
		r.notes = append(r.notes, fmt.Sprintf("server CPU a call %s against %s (%.2f)",
			format(seconds, result[m].cpu.median()), format(seconds, base.cpu.median()),
			result[m].cpu.over(base.cpu).median()))
		rows = append(rows, r)
	}
	if r := result[always]; r != nil && cpuRow != "" {
		rows = append(rows, newRow(cpuRow, r.cpu, base.cpu))
	}
	return rows, nil
}

// latency measures a single caller: a durable call may cost as much as a call that is not counted, plus a write and its
// sync.
func latency(ctx context.Context, l *lab) (_ []row, err error) {
	dir, err := l.newFolder()
	if err != nil {
		return nil, err
	}
	syncer, err := l.startChild("sync", dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, syncer.stop()) }()
	turn := l.callTurn()
	var syncs latencies
	result, err := l.race(ctx, []mode{uncounted, syncing, always}, 1, 1, turn, func(ctx context.Context) error {
		var answer percentiles
		err := syncer.ask(ctx, syncOrder{For: turn}, &answer)
		syncs.add(answer)
		return err
	})
	if err != nil {
		return nil, err
	}
	base := result[uncounted]
	r := newRow(rowLatency, result[always].p50, base.p50.plus(syncs.p50))
	r.productLatency, r.baselineLatency = result[always].median(), base.median()
	r.notes = append(r.notes, fmt.Sprintf(
		"the baseline is p50 %s of a call that is not counted (p99 beside it) and p50 %s (p99 %s) of a write and "+
			"its fdatasync alone",
		format(seconds, base.p50.median()),
		format(seconds, syncs.p50.median()), format(seconds, syncs.p99.median())))
	limit := result[syncing].p50
	r.notes = append(r.notes, fmt.Sprintf(
		"the limit is p50 %s, of an uncounted call whose handler makes the write and the fdatasync itself (%.2f of it)",
		format(seconds, limit.median()), result[always].p50.over(limit).median()))
	return []row{r}, nil
}
