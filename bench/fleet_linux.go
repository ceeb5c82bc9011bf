package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/core-tools/hsu-master/api/adminpb"
)

// fleetSize is the number of workers in the rows of a hundred.
const fleetSize = 100

// fleetRound holds the results of one round of a hundred workers, in base units.
type fleetRound struct {
	bare, cold, reattach  float64
	recorded              float64 // the bare loop with recorded starts
	productRSS, bareRSS   float64
	idleCPU               float64
	cpuOfStart, bareUsage float64 // processor time of the master, and of the bare loop
}

// fleet measures a hundred workers: their start, their idle cost, and re-attaching to them.
func fleet(ctx context.Context, l *lab) ([]row, error) {
	var bare, cold, reattach, productRSS, bareRSS, idleCPU series
	var coldCPU, bareCPU, recorded series
	for round := range l.rounds {
		var r fleetRound
		bareStart := func() (err error) {
			r.bare, r.bareUsage, err = l.bareFleet(ctx, startOrder{Workers: fleetSize}, l.workerPath)
			return err
		}
		recordedStart := func() (err error) {
			if l.wants[rowColdStart] {
				r.recorded, err = l.recordedFleet(ctx, startOrder{Workers: fleetSize}, l.workerPath)
			}
			return err
		}
		product := func() error { return l.productFleet(ctx, &r) }
		order := []func() error{bareStart, product, recordedStart}
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, do := range order {
			if err := l.awaitCalm(ctx); err != nil {
				return nil, err
			}
			if err := do(); err != nil {
				return nil, err
			}
		}
		bare, cold, reattach = append(bare, r.bare), append(cold, r.cold), append(reattach, r.reattach)
		productRSS, bareRSS = append(productRSS, r.productRSS), append(bareRSS, r.bareRSS)
		idleCPU = append(idleCPU, r.idleCPU)
		coldCPU, bareCPU = append(coldCPU, r.cpuOfStart), append(bareCPU, r.bareUsage)
		recorded = append(recorded, r.recorded)
		l.say("round %d of %d, %d workers:  bare %s  cold %s  re-attach %s  RSS %s against %s  idle %s",
			round+1, l.rounds, fleetSize,
			format(seconds, r.bare), format(seconds, r.cold), format(seconds, r.reattach),
			format(bytesUnit, r.productRSS), format(bytesUnit, r.bareRSS), format(ofCore, r.idleCPU))
	}
	start := newRow(rowColdStart, cold, bare)
	start.notes = append(start.notes, fmt.Sprintf("of its own the master used %s of CPU until then, the bare loop %s",
		format(seconds, coldCPU.median()), format(seconds, bareCPU.median())),
		limitNote(recordedLoop, recorded, bare))
	return []row{
		start,
		newRow(rowReattach, reattach, bare),
		newRow(rowRSS, productRSS, bareRSS),
		newRow(rowIdleCPU, idleCPU, nil),
	}, nil
}

// bareFleet returns the time from the exec of the bare loop until it has started all workers, and the processor time
// that it used. The starts are recorded in the folder, if one is given.
func (l *lab) bareFleet(
	ctx context.Context, order startOrder, program string, folder ...string,
) (took, cpu float64, err error) {
	started := time.Now()
	c, err := l.startChild("start", append([]string{program}, folder...)...)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	if _, err := c.start(ctx, order); err != nil {
		return 0, 0, err
	}
	took = time.Since(started).Seconds()
	used, err := cpuTime(c.pid())
	return took, used.Seconds(), err
}

// recordedFleet is bareFleet with recorded starts: no master can be faster that has to find its workers again.
func (l *lab) recordedFleet(ctx context.Context, order startOrder, program string) (took float64, err error) {
	dir, err := l.newFolder()
	if err == nil {
		took, _, err = l.bareFleet(ctx, order, program, dir)
	}
	return took, err
}

// limitNote tells by how much a baseline is slower if it does the least that the product has to do besides.
func limitNote(what string, limit, baseline series) string {
	return fmt.Sprintf("the least that a master has to do: %s took %s, %.2f of the baseline",
		what, format(seconds, limit.median()), limit.over(baseline).median())
}

// recordedLoop describes the bare loop of recordedFleet.
const recordedLoop = "the bare loop with one durable record before, and a lock and a log for each process,"

func (l *lab) productFleet(ctx context.Context, r *fleetRound) (err error) {
	dir, err := l.newFolder()
	if err != nil {
		return err
	}
	flags := []string{"--worker-path", l.workerPath, "--worker-count", strconv.Itoa(fleetSize)}
	first, err := l.startMaster(dir, flags...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, first.stop()) }()
	last, err := first.awaitWorkers(ctx, fleetSize)
	if err != nil {
		return err
	}
	r.cold = last.at.Sub(first.execed).Seconds()
	used, err := cpuTime(first.pid())
	if err != nil {
		return err
	}
	r.cpuOfStart = used.Seconds()
	before, err := first.runningWorkers(ctx, fleetSize)
	if err != nil {
		return err
	}
	var ports []int
	for _, w := range before {
		ports = append(ports, int(w.GetPort()))
	}
	if l.wants[rowRSS] || l.wants[rowIdleCPU] {
		if err := l.idle(ctx, first, last.at, ports, r); err != nil {
			return err
		}
	}
	if !l.wants[rowReattach] {
		return nil
	}

	if err := l.awaitCalm(ctx); err != nil {
		return err
	}
	if err := first.crash(); err != nil {
		return err
	}
	second, err := l.startMaster(dir, flags...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, second.stop()) }()
	serving, err := second.awaitServing(ctx)
	if err != nil {
		return err
	}
	r.reattach = serving.Sub(second.execed).Seconds()
	after, err := second.runningWorkers(ctx, fleetSize)
	if err != nil {
		return err
	}
	return reattached(before, after)
}

// reattached returns an error if the second master has not adopted a worker of the first.
func reattached(before, after map[string]*adminpb.Worker) error {
	for id, w := range after {
		if w.GetPid() != before[id].GetPid() || !w.GetAdopted() {
			return fmt.Errorf("%s was process %d and is %d: it was not re-attached to",
				id, before[id].GetPid(), w.GetPid())
		}
	}
	return nil
}

// idle measures a master that only watches its workers, and a bare server that is connected to the same workers.
func (l *lab) idle(ctx context.Context, m *master, started time.Time, ports []int, r *fleetRound) (err error) {
	dir, err := l.newFolder()
	if err != nil {
		return err
	}
	bare, err := l.startChild("idle", dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bare.stop()) }()
	if err := bare.ask(ctx, idleOrder{Ports: ports}, &done{}); err != nil {
		return err
	}
	if err := l.settle(ctx, m, started); err != nil {
		return err
	}
	shares, err := coreShares(ctx, l.span(5*time.Second, 2*time.Second), m.pid())
	if err != nil {
		return err
	}
	r.idleCPU = shares[0]
	if r.productRSS, err = residentSize(m.pid()); err != nil {
		return err
	}
	r.bareRSS, err = residentSize(bare.pid())
	return err
}

// A master that has started its workers is idle when it has returned the memory that the start needed. What follows a
// start lasts the longer the longer the start has taken.
const (
	shortestSettling = 7 * time.Second // from the exec
	longestSettling  = 10 * time.Second
)

// settle waits until a master whose workers were started at a time is idle.
func (l *lab) settle(ctx context.Context, m *master, started time.Time) error {
	settling := min(started.Sub(m.execed), longestSettling)
	if !l.quick {
		settling = max(settling, shortestSettling-time.Since(m.execed))
	}
	return pause(ctx, settling)
}

// coreShares returns the share of a core that each process uses within a while. It begins a second later: right after
// its start a master is not idle yet, because it writes the last records.
func coreShares(ctx context.Context, while time.Duration, pids ...int) (series, error) {
	if err := pause(ctx, time.Second); err != nil {
		return nil, err
	}
	started := time.Now()
	shares := make(series, len(pids))
	for i, pid := range pids {
		used, err := cpuTime(pid)
		if err != nil {
			return nil, err
		}
		shares[i] = -used.Seconds()
	}
	if err := pause(ctx, while); err != nil {
		return nil, err
	}
	for i, pid := range pids {
		used, err := cpuTime(pid)
		if err != nil {
			return nil, err
		}
		shares[i] = (shares[i] + used.Seconds()) / time.Since(started).Seconds()
	}
	return shares, nil
}
