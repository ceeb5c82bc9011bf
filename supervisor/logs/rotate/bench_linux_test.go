package rotate

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/logs/layout"
)

// measured is what a writer without a pause has measured.
type measured struct {
	Lines    int
	Seconds  float64
	P99, Max time.Duration // of one write
}

const benchLine = 100

// measureMain writes as many lines as envNumber says, or until the file envPath + ".stop" appears, and measures.
func measureMain() int {
	f, err := os.OpenFile(os.Getenv(envPath), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	limit, _ := strconv.Atoi(os.Getenv(envNumber))
	took := make([]time.Duration, 0, 64<<20)
	text := bytes.Repeat([]byte("."), benchLine)
	text[benchLine-1] = '\n'
	began := time.Now()
	for at := began; limit == 0 || len(took) < limit; {
		if limit == 0 && len(took)%10_000 == 0 {
			if _, err := os.Stat(os.Getenv(envPath) + ".stop"); err == nil {
				break
			}
		}
		copy(text, fmt.Sprintf("%012d", len(took)+1))
		if _, err := f.Write(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		now := time.Now()
		took = append(took, now.Sub(at))
		at = now
	}
	m := measured{Lines: len(took), Seconds: time.Since(began).Seconds()}
	slices.Sort(took)
	m.P99, m.Max = took[len(took)*99/100], took[len(took)-1]
	_ = json.NewEncoder(os.Stdout).Encode(m)
	return 0
}

func measure(b *testing.B, path string, lines int) (m measured) {
	b.Helper()
	out, err := again("measure", path, envNumber+"="+strconv.Itoa(lines)).Output()
	if err == nil {
		err = json.Unmarshal(out, &m)
	}
	if err != nil {
		b.Error(err)
	}
	return m
}

// BenchmarkWriter compares a writer whose log is rotated a hundred times with one whose log is not: their throughput
// and the 99th percentile of their writes. It also counts the lines.
//
//	BENCH_DIR=  the folder of the logs, else a temporary one
func BenchmarkWriter(b *testing.B) {
	for _, compress := range []bool{false, true} {
		b.Run(fmt.Sprintf("compress=%t", compress), func(b *testing.B) {
			for b.Loop() {
				benchWriter(b, compress)
			}
		})
	}
}

// rounds alternate between the two writers, so that what else the machine does disturbs both.
const rounds = 10

func benchWriter(b *testing.B, compress bool) {
	dir := os.Getenv("BENCH_DIR")
	if dir == "" {
		dir = b.TempDir()
	}
	path := filepath.Join(dir, "bench.log")
	var with, without measured
	largest, lost := int64(0), 0
	for range rounds {
		m, moved := rotatedWriter(b, path, compress)
		largest = max(largest, moved)
		lost += m.Lines - countLines(b, path)
		with.add(m)
		emptyLog(b, path)
		without.add(measure(b, path, m.Lines))
	}
	if err := os.Remove(path); err != nil {
		b.Fatal(err)
	}
	rate := func(m measured) float64 { return float64(m.Lines) * benchLine / m.Seconds / 1e6 }
	b.ReportMetric(rate(with), "MB/s")
	b.ReportMetric(rate(with)/rate(without), "of-unrotated")
	b.ReportMetric(float64(with.P99)/rounds, "p99-ns")
	b.ReportMetric(float64(with.P99)/float64(without.P99), "p99-ratio")
	b.ReportMetric(float64(with.Max)/1e6, "max-ms")
	b.ReportMetric(float64(without.Max)/1e6, "unrotated-max-ms")
	b.ReportMetric(float64(largest)/(1<<20), "largest-MiB")
	b.ReportMetric(float64(lost), "lost-lines")
	b.ReportMetric(0, "ns/op")
}

// add adds what another writer has measured. P99 becomes the sum of both.
func (m *measured) add(other measured) {
	m.Lines += other.Lines
	m.Seconds += other.Seconds
	m.P99 += other.P99
	m.Max = max(m.Max, other.Max)
}

func emptyLog(b *testing.B, path string) {
	b.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		b.Fatal(err)
	}
}

// rotatedWriter runs a writer until its log was rotated 100/rounds times. It returns the most bytes that a rotation
// moved.
func rotatedWriter(b *testing.B, path string, compress bool) (m measured, largest int64) {
	b.Helper()
	emptyLog(b, path)
	rotations := make(chan Event, 1000)
	r := New(func(_ context.Context, e Event) { rotations <- e })
	r.Put("w", Log{Path: path, Policy: logs.Policy{Keep: 1000, Compress: compress}, AppendsOnly: always})
	ctx, cancel := context.WithCancel(b.Context())
	served := make(chan struct{})
	go func() { defer close(served); r.Serve(ctx) }()
	done := make(chan measured, 1)
	go func() { done <- measure(b, path, 0) }()
	for range 100 / rounds {
		e := <-rotations
		if e.Kind != Rotated {
			b.Fatalf("%+v", e)
		}
		largest = max(largest, e.Bytes)
	}
	if err := os.WriteFile(path+".stop", nil, 0o600); err != nil {
		b.Fatal(err)
	}
	m = <-done
	cancel()
	<-served
	if err := os.Remove(path + ".stop"); err != nil {
		b.Fatal(err)
	}
	return m, largest
}

// countLines returns the number of lines in a log and its rotated files, and removes those. It fails if they are not in
// order.
func countLines(b *testing.B, path string) int {
	b.Helper()
	files, err := layout.List(path)
	if err != nil {
		b.Fatal(err)
	}
	count := 0
	check := func(name string, content []byte) {
		for text := range bytes.Lines(content) {
			count++
			if len(text) != benchLine || !bytes.HasPrefix(text, fmt.Appendf(nil, "%012d", count)) {
				b.Fatalf("%s: line %d is %q", name, count, text)
			}
		}
	}
	for _, f := range files.Rotated {
		content, err := contentOf(f)
		if err == nil {
			err = os.Remove(f.Path)
		}
		if err != nil {
			b.Fatal(err)
		}
		check(f.Path, content)
	}
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	parts, err := layout.Find(f)
	if err != nil {
		b.Fatal(err)
	}
	content := make([]byte, parts.Size-parts.Lines)
	if _, err := f.ReadAt(content, parts.Lines); err != nil {
		b.Fatal(err)
	}
	check(path, content)
	return count
}
