package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"
)

// sizes are the numbers of workers of the masters whose figures are compared.
var sizes = []int{10, 100, 300, 1000}

// scrapedSize is the number of workers of the row with a scrape a second.
const scrapedSize = 300

// grow measures the main figures of a master with different numbers of workers. The workers are the smallest that
// answer a master, so that the figures are those of the master and the largest number fits into the machine.
func grow(ctx context.Context, l *lab) ([]row, error) {
	values := map[string][]series{} // by row, for each size
	for key := range growthKeys() {
		values[key] = make([]series, len(sizes))
	}
	var scraped series
	for round := range l.rounds {
		for i, n := range sizes {
			if err := l.awaitCalm(ctx); err != nil {
				return nil, err
			}
			g, err := growthOf(ctx, l, n)
			if err != nil {
				return nil, fmt.Errorf("%d workers: %w", n, err)
			}
			for key, value := range g.values {
				values[key][i] = append(values[key][i], value)
			}
			if n == scrapedSize {
				scraped = append(scraped, g.scraped)
			}
			l.say("round %d of %d, %d workers:  start %s  re-attach %s  idle %s  a scrape %s  RSS %s", round+1,
				l.rounds, n, format(seconds, g.values[rowGrowthStart]), format(seconds, g.values[rowGrowthReattach]),
				format(ofCore, g.values[rowGrowthIdle]), format(seconds, g.values[rowGrowthScrape]),
				format(bytesUnit, g.values[rowGrowthRSS]))
		}
	}
	rows := []row{newRow(rowIdleScrape, scraped, nil)}
	for key, each := range values {
		rows = append(rows, newGrowth(key, sizes, each))
	}
	return rows, nil
}

func growthKeys() map[string]bool {
	keys := map[string]bool{}
	for _, f := range figures {
		if f.growth {
			keys[f.key] = true
		}
	}
	return keys
}

// grown holds the figures of one master.
type grown struct {
	values  map[string]float64
	scraped float64 // the share of a core with a scrape a second, of a master with scrapedSize workers
}

// growthOf measures a master with n workers.
func growthOf(ctx context.Context, l *lab, n int) (_ *grown, err error) {
	port, err := freePort()
	if err != nil {
		return nil, fmt.Errorf("take a free port: %w", err)
	}
	scrape := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	first, err := l.startFile(fmt.Sprintf(
		"metrics: %s\nunits:\n  stub: {command: [%q], replicas: %d, environment: {GOMAXPROCS: \"1\"}}\n",
		scrape, l.stubPath, n))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, first.stop()) }()
	g := &grown{values: map[string]float64{}}
	last, err := first.awaitWorkers(ctx, n)
	if err != nil {
		return nil, err
	}
	g.values[rowGrowthStart] = last.at.Sub(first.execed).Seconds()
	used, err := cpuTime(first.pid())
	if err != nil {
		return nil, err
	}
	g.values[rowGrowthStartCPU] = used.Seconds()
	before, err := first.runningWorkers(ctx, n)
	if err != nil {
		return nil, err
	}
	if err := l.settle(ctx, first, last.at); err != nil {
		return nil, err
	}
	if err := growthAtRest(ctx, l, first, n, scrape, g); err != nil {
		return nil, err
	}
	goroutines, err := first.abort()
	if err != nil {
		return nil, err
	}
	g.values[rowGrowthGoroutines] = float64(goroutines)

	second, err := l.startMaster(first.dir, first.flags...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, second.stop()) }()
	serving, err := second.awaitServing(ctx)
	if err != nil {
		return nil, err
	}
	g.values[rowGrowthReattach] = serving.Sub(second.execed).Seconds()
	after, err := second.runningWorkers(ctx, n)
	if err != nil {
		return nil, err
	}
	return g, reattached(before, after)
}

// growthAtRest measures a master whose n workers are ready.
func growthAtRest(ctx context.Context, l *lab, m *master, n int, scrape string, g *grown) error {
	// Each worker is checked once in this time.
	while := l.span(5*time.Second, 2*time.Second)
	shares, err := coreShares(ctx, while, m.pid())
	if err != nil {
		return err
	}
	g.values[rowGrowthIdle] = shares[0]
	if g.values[rowGrowthRSS], err = residentSize(m.pid()); err != nil {
		return err
	}
	descriptors, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.pid()))
	if err != nil {
		return fmt.Errorf("count the descriptors: %w", err)
	}
	g.values[rowGrowthFiles] = float64(len(descriptors))

	// The CPU time of the command itself and that of the master for it.
	before, err := cpuTime(m.pid())
	if err != nil {
		return err
	}
	command, err := l.commandCPU(ctx, listOf(m)...)
	if err != nil {
		return err
	}
	after, err := cpuTime(m.pid())
	if err != nil {
		return err
	}
	g.values[rowGrowthList] = command + (after-before).Seconds()/commandRuns

	if g.values[rowGrowthScrape], err = scrapeCPU(ctx, m, scrape); err != nil {
		return err
	}
	if n == scrapedSize {
		g.scraped, err = scrapedShare(ctx, m, scrape, while)
	}
	return err
}

// scrapeRuns is the number of scrapes that are averaged. They are read one after the other, so that the checks of
// workers meanwhile hardly count.
const scrapeRuns = 20

// scrapeCPU returns the processor time, in seconds, that a master uses for a scrape of its metrics.
func scrapeCPU(ctx context.Context, m *master, scrape string) (float64, error) {
	before, err := cpuTime(m.pid())
	if err != nil {
		return 0, err
	}
	for range scrapeRuns {
		if err := readMetrics(ctx, "http://"+scrape+"/metrics"); err != nil {
			return 0, err
		}
	}
	after, err := cpuTime(m.pid())
	return (after - before).Seconds() / scrapeRuns, err
}

const scrapeEvery = time.Second

// scrapedShare returns the share of a core that a master uses while its metrics are read once a second.
func scrapedShare(ctx context.Context, m *master, scrape string, while time.Duration) (float64, error) {
	ctx, cancel := context.WithCancel(ctx)
	scraping := make(chan error, 1)
	go func() {
		for {
			err := readMetrics(ctx, "http://"+scrape+"/metrics")
			if err == nil {
				err = pause(ctx, scrapeEvery)
			}
			if ctx.Err() != nil {
				scraping <- nil
				return
			}
			if err != nil {
				scraping <- err
				return
			}
		}
	}()
	shares, err := coreShares(ctx, while, m.pid())
	cancel()
	if err := errors.Join(err, <-scraping); err != nil {
		return 0, err
	}
	return shares[0], nil
}

func readMetrics(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("read the metrics: %w", err)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	if err != nil {
		return fmt.Errorf("read the metrics: %w", err)
	}
	return nil
}
