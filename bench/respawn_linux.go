package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"
)

// killsPerRound is the number of kills that are averaged, since a single respawn takes only milliseconds.
const killsPerRound = 3

// noBackoffAfter is how long a worker must be ready to be replaced without backoff: DESIGN's 10 s, plus a margin.
const noBackoffAfter = 10*time.Second + 500*time.Millisecond

// respawn kills each worker once, so that no backoff applies.
func respawn(ctx context.Context, l *lab) (_ []row, err error) {
	dir, err := l.newFolder()
	if err != nil {
		return nil, err
	}
	n := l.rounds * killsPerRound
	m, err := l.startMaster(dir, "--worker-path", l.workerPath, "--worker-count", strconv.Itoa(n))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.stop()) }()
	bare, err := l.startChild("start", l.workerPath)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, bare.stop()) }()
	recording, err := l.startRecording(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, recording.stop()) }()
	if _, err := m.awaitWorkers(ctx, n); err != nil {
		return nil, err
	}
	workers, err := m.runningWorkers(ctx, n)
	if err != nil {
		return nil, err
	}
	if err := pause(ctx, noBackoffAfter); err != nil {
		return nil, err
	}

	sides := []func(number int) (time.Duration, error){
		func(number int) (time.Duration, error) {
			id := "worker-" + strconv.Itoa(number)
			return m.replace(ctx, id, int(workers[id].GetPid()), workers[id].GetToken())
		},
		func(int) (time.Duration, error) { return bare.start(ctx, startOrder{Workers: 1}) },
		func(int) (time.Duration, error) { return recording.start(ctx, startOrder{Replace: true}) },
	}
	medians, all, err := l.measureStarts(ctx, sides)
	if err != nil {
		return nil, err
	}
	r := newRow(rowRespawn, medians[0], medians[1])
	r.productLatency, r.baselineLatency = percentilesOf(all[0]), percentilesOf(all[1])
	r.notes = append(r.notes, limitNote(
		"kill one, await its end, one durable record, and exec, dial, Ping of the next with a lock and a log",
		medians[2], medians[1]))
	return []row{r}, nil
}

// measureStarts starts a few processes of each side in each round. It returns the medians of the rounds, and all
// times, by side. Each call of a side has another number.
func (l *lab) measureStarts(
	ctx context.Context, sides []func(number int) (time.Duration, error),
) (medians []series, all [][]time.Duration, err error) {
	medians, all = make([]series, len(sides)), make([][]time.Duration, len(sides))
	for round := range l.rounds {
		if err := l.awaitCalm(ctx); err != nil {
			return nil, nil, err
		}
		for _, side := range turns(len(sides), round)[:len(sides)] {
			var took series
			for i := range killsPerRound {
				d, err := sides[side](round*killsPerRound + i)
				if err != nil {
					return nil, nil, err
				}
				took, all[side] = append(took, d.Seconds()), append(all[side], d)
				// The records and exits that follow an event must not overlap with the next one.
				if err := pause(ctx, 100*time.Millisecond); err != nil {
					return nil, nil, err
				}
			}
			medians[side] = append(medians[side], took.median())
		}
		l.say("round %d of %d, killed workers:  replaced %s  started %s", round+1, l.rounds,
			format(seconds, medians[0][round]), format(seconds, medians[1][round]))
	}
	return medians, all, nil
}

// startRecording starts a bare loop with recorded starts, and one worker.
func (l *lab) startRecording(ctx context.Context) (*child, error) {
	dir, err := l.newFolder()
	if err != nil {
		return nil, err
	}
	c, err := l.startChild("start", l.workerPath, dir)
	if err != nil {
		return nil, err
	}
	if _, err := c.start(ctx, startOrder{Workers: 1}); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

// start has a bare loop start workers, and returns the time that it took.
func (c *child) start(ctx context.Context, order startOrder) (took time.Duration, err error) {
	err = c.ask(ctx, order, &took)
	return took, err
}

// replace kills the worker and returns the time until its next instance was ready.
func (m *master) replace(ctx context.Context, id string, pid int, token string) (_ time.Duration, err error) {
	p, err := openWorker(pid, token)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	killed := time.Now()
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return 0, fmt.Errorf("kill %s: %w", id, err)
	}
	next, err := m.awaitWorkers(ctx, 1)
	if err != nil {
		return 0, err
	}
	if next.id != id || next.pid == pid {
		return 0, fmt.Errorf("killed %s (process %d), but %s (process %d) got ready", id, pid, next.id, next.pid)
	}
	return next.at.Sub(killed), nil
}
