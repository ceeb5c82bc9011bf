package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/goccy/go-yaml/parser"

	"github.com/core-tools/hsu-master/config"
)

// The sides of a round of loads.
const (
	sideLoad       = iota // a file of manyUnits
	sideParse             // the same file, only parsed
	sideLoadFewer         // a file of fewerUnits
	sideParseFewer        // the same file, only parsed
	sidesOfLoad
)

const (
	manyUnits  = 1_000
	fewerUnits = 100
)

// loadFile measures the time from the text of a configuration to its units, and how it grows with the text.
func loadFile(ctx context.Context, l *lab) (_ []row, err error) {
	c, err := l.startChild("parse")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.stop()) }()
	orders := [sidesOfLoad]parseOrder{
		sideLoad:       {Units: manyUnits},
		sideParse:      {Units: manyUnits, ParserOnly: true},
		sideLoadFewer:  {Units: fewerUnits},
		sideParseFewer: {Units: fewerUnits, ParserOnly: true},
	}
	var took [sidesOfLoad]series
	for round := range l.rounds {
		if err := l.awaitCalm(ctx); err != nil {
			return nil, err
		}
		var sum [sidesOfLoad]time.Duration
		for _, side := range turns(sidesOfLoad, round) {
			order := orders[side]
			order.For = l.span(500*time.Millisecond, 200*time.Millisecond)
			var each time.Duration
			if err := c.ask(ctx, order, &each); err != nil {
				return nil, err
			}
			sum[side] += each / 2 // each side has two turns
		}
		for side := range took {
			took[side] = append(took[side], sum[side].Seconds())
		}
		l.say("round %d of %d, %d units:  loaded %s  parsed %s  %d loaded %s", round+1, l.rounds, manyUnits,
			format(seconds, took[sideLoad][round]), format(seconds, took[sideParse][round]),
			fewerUnits, format(seconds, took[sideLoadFewer][round]))
	}
	growth := newRow(rowLoadGrowth, shareOfFewer(took[sideLoad]), took[sideLoadFewer])
	growth.notes = append(growth.notes, fmt.Sprintf("the parser alone has %.2f",
		shareOfFewer(took[sideParse]).over(took[sideParseFewer]).median()))
	return []row{newRow(rowLoad, took[sideLoad], took[sideParse]), growth}, nil
}

// shareOfFewer returns what fewerUnits of manyUnits took if each took the same.
func shareOfFewer(took series) series {
	share := make(series, len(took))
	for i, t := range took {
		share[i] = t * fewerUnits / manyUnits
	}
	return share
}

type parseOrder struct {
	Units      int
	ParserOnly bool
	For        time.Duration
}

// childParse loads files in memory. It answers with the mean processor time: a load waits for nothing, and the time on
// the clock depends more on how many processors the garbage collector finds idle than on the load.
func childParse(c *childIO) error {
	return orders(c, func(order parseOrder) (time.Duration, error) {
		text := configText(order.Units)
		host := hostOf(text)
		runtime.GC() // the garbage of the former order is not part of this one
		before, err := cpuTime(os.Getpid())
		if err != nil {
			return 0, err
		}
		end := time.Now().Add(order.For)
		n := 0
		for ; n == 0 || time.Now().Before(end); n++ {
			if order.ParserOnly {
				if _, err := parser.ParseBytes([]byte(text), 0); err != nil {
					return 0, err
				}
			} else if file, err := config.Load("/hsu-master.yaml", host); err != nil {
				return 0, err
			} else if len(file.Units) != order.Units {
				return 0, fmt.Errorf("loaded %d units, want %d", len(file.Units), order.Units)
			}
		}
		after, err := cpuTime(os.Getpid())
		return (after - before) / time.Duration(n), err
	})
}

// hostOf returns a host on which every file has this text.
func hostOf(text string) config.Host {
	return config.Host{
		Variable:     func(string) (string, bool) { return "/home/nobody", true },
		ReadFile:     func(string) ([]byte, error) { return []byte(text), nil },
		Glob:         func(string) ([]string, error) { return nil, nil },
		CheckTrusted: func(string) error { return nil },
		User:         func(string) error { return nil },
		Group:        func(string) error { return nil },
	}
}

// configText returns a configuration with n units such as people write.
func configText(n int) string {
	var b strings.Builder
	b.WriteString("defaults:\n  log: {max_size: 20MiB, keep: 3}\n  restart: {policy: on-failure}\nunits:\n")
	for i := range n {
		fmt.Fprintf(&b, `  unit%d:
    kind: managed
    command: [./bin/serve, --listen, "127.0.0.1:{port}", --level, info]
    replicas: 2
    working_dir: data
    environment:
      LOG_LEVEL: info
      HOME: ${HOME}
    health: {type: http, url: "http://127.0.0.1:{port}/health", interval: 2s}
    stop: {grace: 30s}
    limits:
      memory: 512MiB
      open_files: 4096
`, i)
	}
	return b.String()
}
