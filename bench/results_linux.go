package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// resultsStored is the default maximum number of stored results.
const resultsStored = 100_000

// startOnResults measures the start of a master of no workers on a registry with many stored results, against the start
// on one without any.
func startOnResults(ctx context.Context, l *lab) ([]row, error) {
	var dirs [2]string
	for i, n := range []int{0, resultsStored} {
		var err error
		if dirs[i], err = l.newFolder(); err != nil {
			return nil, err
		}
		if err := storeResults(dirs[i], n); err != nil {
			return nil, err
		}
	}
	var empty, full, emptyCPU, fullCPU series
	for round := range l.rounds {
		order := []int{0, 1}
		if round%2 == 1 {
			order[0], order[1] = order[1], order[0]
		}
		for _, i := range order {
			if err := l.awaitCalm(ctx); err != nil {
				return nil, err
			}
			took, used, err := startAndCrash(ctx, l, dirs[i])
			if err != nil {
				return nil, err
			}
			if i == 0 {
				empty, emptyCPU = append(empty, took), append(emptyCPU, used)
			} else {
				full, fullCPU = append(full, took), append(fullCPU, used)
			}
		}
		l.say("round %d of %d, exec to SERVING with %d stored results %s, with none %s", round+1, l.rounds,
			resultsStored, format(seconds, full[round]), format(seconds, empty[round]))
	}
	r := newRow(rowStartResults, full, empty)
	r.notes = append(r.notes, fmt.Sprintf("the master used %s of CPU until then, with no results %s",
		format(seconds, fullCPU.median()), format(seconds, emptyCPU.median())))
	return []row{r}, nil
}

// storeResults makes a state in dir with n results of requests.
func storeResults(dir string, n int) (err error) {
	boot, err := process.BootID()
	if err != nil {
		return err
	}
	db, err := store.Open(dir, store.Options{BootTime: process.BootTime, BootID: boot})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	stored := newStoring(n)
	for i := range n {
		id := fmt.Sprintf("%08x-0000-4000-8000-%012x", i*2654435761, i)
		db.CountOnce(records.Result{
			ID: id, Method: "/proto.MyBusinessService/ProcessData", Digest: sha256.Sum256([]byte(id)),
			Response: fmt.Appendf(nil, "Processed: request %d", i), Stored: time.Now(),
		}, stored)
	}
	stored.wait.Wait()
	return stored.err
}

// storing waits for the outcomes of requests.
type storing struct {
	wait sync.WaitGroup
	err  error // the first one; only one goroutine tells them
}

func newStoring(n int) *storing {
	s := new(storing)
	s.wait.Add(n)
	return s
}

// Counted is called with the outcome of each request.
func (s *storing) Counted(err error) {
	if s.err == nil {
		s.err = err
	}
	s.wait.Done()
}

// startAndCrash starts a master on the state in dir and kills it when it serves. It returns the time from exec to
// SERVING, and the processor time that the master has used until then.
func startAndCrash(ctx context.Context, l *lab, dir string) (took, used float64, err error) {
	m, err := l.startMaster(dir, "--request-ttl", "24h") // no result expires during the measurement
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, m.stop()) }()
	at, err := m.awaitServing(ctx)
	if err != nil {
		return 0, 0, err
	}
	cpu, err := cpuTime(m.pid())
	if err != nil {
		return 0, 0, err
	}
	return at.Sub(m.execed).Seconds(), cpu.Seconds(), m.crash()
}
