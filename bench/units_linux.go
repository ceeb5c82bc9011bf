package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// sleepArgs makes sleep(1), the cheapest program that stays, sleep for longer than any run.
var sleepArgs = []string{"1000000"}

// startFile executes a master with a configuration file.
func (l *lab) startFile(text string) (*master, error) {
	dir, err := l.newFolder()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "hsu-master.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("write the configuration: %w", err)
	}
	return l.startMaster(dir, "--config", file)
}

// startUnits measures the start of a hundred processes that nothing waits for.
func startUnits(ctx context.Context, l *lab) ([]row, error) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		return nil, fmt.Errorf("find sleep: %w", err)
	}
	order := startOrder{Workers: fleetSize, Args: sleepArgs}
	var product, bare, recorded, productCPU, bareCPU series
	for round := range l.rounds {
		for _, side := range turns(3, round)[:3] {
			if err := l.awaitCalm(ctx); err != nil {
				return nil, err
			}
			switch side {
			case 0:
				took, cpu, err := recordedUnits(ctx, l)
				if err != nil {
					return nil, err
				}
				product, productCPU = append(product, took), append(productCPU, cpu)
			case 1:
				took, cpu, err := l.bareFleet(ctx, order, sleep)
				if err != nil {
					return nil, err
				}
				bare, bareCPU = append(bare, took), append(bareCPU, cpu)
			case 2:
				took, err := l.recordedFleet(ctx, order, sleep)
				if err != nil {
					return nil, err
				}
				recorded = append(recorded, took)
			}
		}
		l.say("round %d of %d, %d managed workers:  recorded %s  bare %s", round+1, l.rounds, fleetSize,
			format(seconds, product[round]), format(seconds, bare[round]))
	}
	r := newRow(rowColdStartUnits, product, bare)
	r.notes = append(r.notes, fmt.Sprintf("of its own the master used %s of CPU until then, the bare loop %s",
		format(seconds, productCPU.median()), format(seconds, bareCPU.median())),
		limitNote(recordedLoop, recorded, bare))
	return []row{r}, nil
}

// recordedUnits returns the time from the exec of a master until the processes of all its workers are recorded, and the
// processor time that it used. No worker becomes ready meanwhile, because that would be recorded too.
func recordedUnits(ctx context.Context, l *lab) (took, cpu float64, err error) {
	m, err := l.startFile(fmt.Sprintf(
		"units:\n  sleeper: {kind: managed, command: [sleep, %q], replicas: %d, start: {settle: 20s}}\n",
		sleepArgs[0], fleetSize))
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, m.stop()) }()
	if _, err := m.startedWorkers(ctx, fleetSize); err != nil {
		return 0, 0, err
	}
	took = time.Since(m.execed).Seconds()
	used, err := cpuTime(m.pid())
	return took, used.Seconds(), err
}

// idleUnits compares a master whose units are of several kinds with one that has as many integrated units. Both are
// idle at the same time, so that the other activity of the machine affects both.
func idleUnits(ctx context.Context, l *lab) (_ []row, err error) {
	server, err := l.startChild("serve")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	var at address
	if err := server.ask(ctx, done{}, &at); err != nil {
		return nil, err
	}
	var masters []*master
	defer func() {
		for _, m := range masters {
			err = errors.Join(err, m.stop())
		}
	}()
	for _, integrated := range []int{fleetSize / 2, fleetSize} {
		m, err := l.startFile(unitsText(integrated, l.workerPath, at.Address))
		if err != nil {
			return nil, err
		}
		masters = append(masters, m)
		if _, err := m.awaitWorkers(ctx, fleetSize); err != nil {
			return nil, err
		}
	}
	const while = 5 * time.Second // the default interval of checks
	var mixed, integrated series
	for round := range l.rounds {
		if err := l.awaitCalm(ctx); err != nil {
			return nil, err
		}
		shares, err := coreShares(ctx, while, masters[0].pid(), masters[1].pid())
		if err != nil {
			return nil, err
		}
		mixed, integrated = append(mixed, shares[0]), append(integrated, shares[1])
		l.say("round %d of %d, %d idle units:  mixed %s  integrated %s", round+1, l.rounds, fleetSize,
			format(ofCore, mixed[round]), format(ofCore, integrated[round]))
	}
	for _, m := range masters {
		if _, err := m.runningWorkers(ctx, fleetSize); err != nil { // else it was not idle
			return nil, err
		}
	}
	return []row{newRow(rowIdleCPUMixed, mixed, integrated)}, nil
}

// unitsText returns a configuration with fleetSize units, of which the first are integrated. The others are managed:
// one is checked by its process, the next by HTTP and the next by a TCP connect to a server, and so on.
func unitsText(integrated int, worker, server string) string {
	checks := []string{
		"{type: process}",
		fmt.Sprintf(`{type: http, url: "http://%s/"}`, server),
		fmt.Sprintf(`{type: tcp, address: %q}`, server),
	}
	var b strings.Builder
	b.WriteString("units:\n")
	for i := range integrated {
		fmt.Fprintf(&b, "  integrated%d: {command: [%q]}\n", i, worker)
	}
	for i := range fleetSize - integrated {
		fmt.Fprintf(&b, "  managed%d: {kind: managed, command: [sleep, %q], health: %s}\n",
			i, sleepArgs[0], checks[i%len(checks)])
	}
	return b.String()
}

// childServe answers HTTP requests.
func childServe(c *childIO) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
		ReadHeaderTimeout: startPatience,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	err = orders(c, func(done) (address, error) { return address{listener.Addr().String()}, nil })
	err = errors.Join(err, server.Close())
	if serving := <-served; !errors.Is(serving, http.ErrServerClosed) {
		err = errors.Join(err, serving)
	}
	return err
}
