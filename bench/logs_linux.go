package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/core-tools/hsu-master/supervisor/logs"
)

const (
	speakers    = 50
	spokenEach  = 200 // lines a second of each speaker
	spokenEvery = 50 * time.Millisecond
)

// followLogs compares a master and its client that follow the logs of many workers with tail(1) of the same files at
// the same time. A line that the client does not get is an error.
func followLogs(ctx context.Context, l *lab) (_ []row, err error) {
	program, err := exec.LookPath("tail")
	if err != nil {
		return nil, fmt.Errorf("find tail: %w", err)
	}
	m, err := l.startFile(fmt.Sprintf(`units:
  speaker: {kind: managed, command: [%q, %s, speak], replicas: %d, log: {max_size: %s}, start: {settle: 20ms}}
`, l.benchPath, childMark, speakers, neverAt))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.stop()) }()
	if _, err := m.awaitServing(ctx); err != nil {
		return nil, err
	}
	if _, err := m.runningWorkers(ctx, speakers); err != nil {
		return nil, err
	}
	ours := exec.CommandContext(ctx, l.masterPath, "worker", "logs", "--all", "-f", "-n", "0", "--state-dir", m.dir)
	theirs := exec.CommandContext(ctx, program, "-q", "-n", "0", "-f")
	for i := range speakers {
		theirs.Args = append(theirs.Args, logs.Path(logs.DefaultDir(m.dir), fmt.Sprintf("speaker-%d", i)))
	}
	heard := filepath.Join(l.dir, "heard")
	for path, cmd := range map[string]*exec.Cmd{heard: ours, os.DevNull: theirs} {
		if cmd.Stdout, err = os.Create(path); err == nil {
			err = cmd.Start()
		}
		if err != nil {
			return nil, fmt.Errorf("follow the logs: %w", err)
		}
		defer func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}()
	}
	var product, tail, client series
	for round := range l.rounds {
		if err := l.awaitCalm(ctx); err != nil {
			return nil, err
		}
		while := l.span(5*time.Second, 2*time.Second)
		shares, err := coreShares(ctx, while, m.pid(), ours.Process.Pid, theirs.Process.Pid)
		if err != nil {
			return nil, err
		}
		product, tail = append(product, shares[0]+shares[1]), append(tail, shares[2])
		client = append(client, shares[1])
		l.say("round %d of %d, %d lines/s of %d logs:  master %s, client %s  tail %s",
			round+1, l.rounds, speakers*spokenEach, speakers,
			format(ofCore, shares[0]), format(ofCore, shares[1]), format(ofCore, shares[2]))
	}
	n, err := checkHeard(heard)
	if err != nil {
		return nil, err
	}
	r := newRow(rowLogsFollow, product, tail)
	r.notes = append(r.notes, fmt.Sprintf("%d lines, of which none is lost; the client used %s of it",
		n, format(ofCore, client.median())))
	return []row{r}, nil
}

// checkHeard returns an error if a line is missing between the first and the last one of a worker.
func checkHeard(path string) (n int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	next := map[string]int{}
	lines := bufio.NewScanner(f)
	for ; lines.Scan(); n++ {
		id, text, _ := bytes.Cut(lines.Bytes(), []byte("|"))
		number, err := strconv.Atoi(string(bytes.TrimLeft(text[:min(len(text), 13)], " ")))
		worker := string(bytes.TrimSpace(id))
		if err != nil || len(text) != lineSize { // with a blank, without a newline
			if next[worker] > 0 && lines.Err() == nil {
				continue // the last one may be incomplete
			}
			return n, fmt.Errorf("the output of the client has the line %q", lines.Bytes())
		}
		if expected := next[worker]; expected > 0 && number != expected {
			return n, fmt.Errorf("line %d of %s comes where line %d is due", number, worker, expected)
		}
		next[worker] = number + 1
	}
	if len(next) != speakers {
		return n, fmt.Errorf("%d workers were heard of %d", len(next), speakers)
	}
	return n, lines.Err()
}

// childSpeak is a worker that writes some lines regularly.
func childSpeak(*childIO) error {
	line := blankLine()
	n := 0
	for range time.Tick(spokenEvery) {
		for range spokenEach * int(spokenEvery) / int(time.Second) {
			n++
			number(line, n)
			if _, err := os.Stdout.Write(line); err != nil {
				return err
			}
		}
	}
	return nil
}
