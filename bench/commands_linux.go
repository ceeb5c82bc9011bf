package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"
)

// The numbers of workers of the masters that the commands ask.
const (
	fewWorkers  = 10
	manyWorkers = 300
)

// commandRuns is the number of runs of a command in a round, as one takes milliseconds.
const commandRuns = 20

// commands measures the commands that an operator runs all the time: their use of the processor, and their cost for
// the master.
func commands(ctx context.Context, l *lab) (_ []row, err error) {
	var masters []*master
	defer func() {
		for _, m := range masters {
			err = errors.Join(err, m.stop())
		}
	}()
	for _, n := range []int{fewWorkers, manyWorkers, manyWorkers} {
		m, err := l.startFile(fmt.Sprintf(
			"units:\n  sleeper: {kind: managed, command: [sleep, %q], replicas: %d, start: {settle: 20ms}}\n",
			sleepArgs[0], n))
		if err != nil {
			return nil, err
		}
		masters = append(masters, m)
		if _, err := m.awaitWorkers(ctx, n); err != nil {
			return nil, err
		}
	}
	few, many, idle := masters[0], masters[1], masters[2]
	var versions, fews, manys, watched, unwatched series
	for round := range l.rounds {
		if err := l.awaitCalm(ctx); err != nil {
			return nil, err
		}
		var used [3]float64
		for i, args := range [][]string{{"version"}, listOf(few), listOf(many)} {
			if used[i], err = l.commandCPU(ctx, args...); err != nil {
				return nil, err
			}
		}
		versions, fews, manys = append(versions, used[0]), append(fews, used[1]), append(manys, used[2])
		shares, err := watchedShares(ctx, l, many, idle)
		if err != nil {
			return nil, err
		}
		watched, unwatched = append(watched, shares[0]), append(unwatched, shares[1])
		l.say("round %d of %d:  version %s  worker list %s of %d, %s of %d  master under top %s, idle %s",
			round+1, l.rounds, format(seconds, used[0]), format(seconds, used[1]), fewWorkers,
			format(seconds, used[2]), manyWorkers, format(ofCore, shares[0]), format(ofCore, shares[1]))
	}
	return []row{
		newRow(rowList, fews, versions), newRow(rowListGrowth, manys, fews), newRow(rowTop, watched, unwatched),
	}, nil
}

func listOf(m *master) []string { return []string{"worker", "list", "--state-dir", m.dir} }

// commandCPU returns the processor time of a command, the mean of several runs.
func (l *lab) commandCPU(ctx context.Context, args ...string) (float64, error) {
	var used time.Duration
	for range commandRuns {
		cmd := exec.CommandContext(ctx, l.masterPath, args...)
		cmd.Env = masterEnviron()
		if err := cmd.Run(); err != nil {
			return 0, fmt.Errorf("hsu-master %q: %w", args, err)
		}
		used += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	}
	return used.Seconds() / commandRuns, nil
}

// watchedShares returns the shares of a core that two masters use while top watches the first one.
func watchedShares(ctx context.Context, l *lab, watched, idle *master) (shares series, err error) {
	ctx, cancel := context.WithCancel(ctx)
	top := exec.CommandContext(ctx, l.masterPath, "top", "--count", "1000000", "--state-dir", watched.dir)
	top.Env = masterEnviron()
	if err := top.Start(); err != nil {
		cancel()
		return nil, fmt.Errorf("start top: %w", err)
	}
	defer func() {
		cancel()
		_ = top.Wait() // it was killed
	}()
	return coreShares(ctx, 5*time.Second, watched.pid(), idle.pid())
}
