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

	var product, baseline, limit series
	var allReplaced, allStarted []time.Duration
	for round := range l.rounds {
		if err := l.awaitCalm(ctx); err != nil {
			return nil, err
		}
		var replaced, started, least series
		for _, side := range turns(3, round)[:3] {
			for i := range killsPerRound {
				switch side {
				case 0:
					id := "worker-" + strconv.Itoa(round*killsPerRound+i)
					d, err := m.replace(ctx, id, int(workers[id].GetPid()), workers[id].GetToken())
					if err != nil {
						return nil, err
					}
					replaced, allReplaced = append(replaced, d.Seconds()), append(allReplaced, d)
				case 1:
					var d time.Duration
					if err := bare.ask(ctx, startOrder{Workers: 1}, &d); err != nil {
						return nil, err
					}
					started, allStarted = append(started, d.Seconds()), append(allStarted, d)
				case 2:
					var d time.Duration
					if err := recording.ask(ctx, startOrder{Replace: true}, &d); err != nil {
						return nil, err
					}
					least = append(least, d.Seconds())
				}
				// The records and exits that follow an event must not overlap with the next one.
				if err := pause(ctx, 100*time.Millisecond); err != nil {
					return nil, err
				}
			}
		}
		product, baseline = append(product, replaced.median()), append(baseline, started.median())
		limit = append(limit, least.median())
		l.say("round %d of %d, killed workers:  replaced %s  started %s", round+1, l.rounds,
			format(seconds, product[round]), format(seconds, baseline[round]))
	}
	r := newRow(rowRespawn, product, baseline)
	r.productLatency, r.baselineLatency = percentilesOf(allReplaced), percentilesOf(allStarted)
	r.notes = append(r.notes, limitNote(
		"kill one, await its end, one durable record, and exec, dial, Ping of the next with a lock and a log",
		limit, baseline))
	return []row{r}, nil
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
	var took time.Duration
	if err := c.ask(ctx, startOrder{Workers: 1}, &took); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
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
