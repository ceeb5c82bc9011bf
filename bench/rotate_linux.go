package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/logs/layout"
)

const (
	rotations = 60 // of a run, in all its rounds
	lineSize  = 100

	rotateSize = 10 << 20
	rotateAt   = "10MiB"
	neverAt    = "1024GiB"
)

func rotatePlain(ctx context.Context, l *lab) ([]row, error) {
	return rotate(ctx, l, false, rowRotate, rowRotateWrite)
}

func rotateGzip(ctx context.Context, l *lab) ([]row, error) {
	return rotate(ctx, l, true, rowRotateGzip, rowRotateGzipWrite)
}

// rotate compares a worker that writes without a pause to a log that its master rotates with one whose log is not
// rotated. A line that is lost or torn is an error.
func rotate(ctx context.Context, l *lab, compress bool, rateRow, writeRow string) ([]row, error) {
	each := (rotations + l.rounds - 1) / l.rounds
	if l.quick {
		each = 5
	}
	lines := each * rotateSize / lineSize // of the side that is not rotated
	var rates, p99s [2]series
	rotated, written := 0, 0
	for round := range l.rounds {
		for _, side := range turns(2, round)[:2] {
			if err := l.awaitCalm(ctx); err != nil {
				return nil, err
			}
			o := outflow{size: neverAt, lines: lines}
			if side == 0 {
				o = outflow{size: rotateAt, compress: compress, rotations: each}
			}
			if err := l.write(ctx, &o); err != nil {
				return nil, err
			}
			if side == 0 {
				lines = o.Lines
				rotated, written = rotated+o.rotated, written+o.Lines
			}
			rates[side] = append(rates[side], float64(o.Lines)*lineSize/o.Took.Seconds())
			p99s[side] = append(p99s[side], o.P99.Seconds())
		}
		l.say("round %d of %d, a log, compressed %t:  rotated %s, p99 %s  not rotated %s, p99 %s",
			round+1, l.rounds, compress,
			format(perBytes, rates[0][round]), format(seconds, p99s[0][round]),
			format(perBytes, rates[1][round]), format(seconds, p99s[1][round]))
	}
	r := newRow(rateRow, rates[0], rates[1])
	r.notes = append(r.notes, fmt.Sprintf("%d rotations of %d lines, of which none is lost or torn", rotated, written))
	return []row{r, newRow(writeRow, p99s[0], p99s[1])}, nil
}

// outflow is the output of a worker: its amount, and the measurements.
type outflow struct {
	size      string // at which the log is rotated
	compress  bool
	rotations int // after which the worker ends; 0 if it ends after a number of lines
	lines     int

	rotated int
	writeAnswer
}

// The files of a worker that writes, in its folder.
const (
	stopFile   = "stop"   // makes it end
	resultFile = "result" // the measurements
)

// writePatience is the longest time in which a worker writes its lines.
const writePatience = 10 * time.Minute

// write runs a master whose only worker writes to its log.
func (l *lab) write(ctx context.Context, o *outflow) error {
	ctx, cancel := context.WithTimeout(ctx, writePatience)
	defer cancel()
	folder, err := os.MkdirTemp(l.dir, "writer-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	m, err := l.startFile(fmt.Sprintf(`units:
  writer:
    kind: managed
    command: [%q, %s, write, %q, "%d"]
    restart: {policy: never}
    log: {max_size: %s, keep: 1000, compress: %t}
`, l.benchPath, childMark, folder, o.lines, o.size, o.compress))
	if err != nil {
		return err
	}
	log := logs.Path(logs.DefaultDir(m.dir), "writer-0")
	err = o.follow(ctx, m, folder, log)
	if err = errors.Join(err, m.stop()); err != nil {
		return err
	}
	files, err := layout.List(log)
	if err != nil {
		return fmt.Errorf("look for rotated files: %w", err)
	}
	if o.rotated = rotationsOf(files); o.rotated < o.rotations {
		return fmt.Errorf("%d rotated files are left of %d", o.rotated, o.rotations)
	}
	if o.rotations > 0 {
		if err := checkLines(log, o.Lines); err != nil {
			return err
		}
	}
	return errors.Join(os.RemoveAll(m.dir), os.RemoveAll(folder)) // the next one needs the space
}

// follow stops the worker after its rotations and returns when it has written its result.
func (o *outflow) follow(ctx context.Context, m *master, folder, log string) error {
	for stopped := o.rotations == 0; ; {
		text, err := os.ReadFile(filepath.Join(folder, resultFile))
		if err == nil {
			return json.Unmarshal(text, &o.writeAnswer)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read the result of the writer: %w", err)
		}
		files, err := layout.List(log)
		if err != nil {
			return fmt.Errorf("look for rotated files: %w", err)
		}
		if !stopped && rotationsOf(files) >= o.rotations {
			stopped = true
			if err := os.WriteFile(filepath.Join(folder, stopFile), nil, 0o600); err != nil {
				return fmt.Errorf("stop the writer: %w", err)
			}
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-m.drained:
			return errors.New("the master ended before its worker" + m.stderr.text())
		case <-ctx.Done():
			return fmt.Errorf("wait for the writer: %w", context.Cause(ctx))
		}
	}
}

// rotationsOf returns how often a log was rotated of which every file is kept. It does not count files: one that is
// being compressed is beside the result of that for a moment.
func rotationsOf(files layout.Files) int { return int(files.Next()) - 1 }

// checkLines returns an error if a log does not consist of the lines from 1 to n.
func checkLines(log string, n int) error {
	c := lineChecker{want: blankLine()}
	err := logs.CopyAll(&c, log)
	if err == nil {
		err = c.complete(n)
	}
	if err != nil {
		return fmt.Errorf("the rotated log is damaged: %w", err)
	}
	return nil
}

// lineChecker is a writer to which the lines of childWrite are written in any pieces.
type lineChecker struct {
	begun bool // the line of the start, which the master writes, is passed
	lines int
	want  []byte // the line that was expected last
	rest  []byte // of a line that is not complete
}

func (c *lineChecker) Write(p []byte) (int, error) {
	text := append(c.rest, p...)
	if !c.begun {
		line, lines, whole := bytes.Cut(text, []byte("\n"))
		if whole && bytes.HasSuffix(line, []byte(": started by hsu-master")) {
			text = lines
		}
		c.begun = whole
	}
	for c.begun && len(text) >= lineSize {
		c.lines++
		number(c.want, c.lines)
		if !bytes.Equal(text[:lineSize], c.want) {
			return 0, fmt.Errorf("line %d is %q", c.lines, text[:lineSize])
		}
		text = text[lineSize:]
	}
	c.rest = bytes.Clone(text)
	return len(p), nil
}

// complete returns an error unless exactly n lines were written.
func (c *lineChecker) complete(n int) error {
	if c.lines != n || len(c.rest) > 0 {
		return fmt.Errorf("%d lines of %d are left, and %d bytes", c.lines, n, len(c.rest))
	}
	return nil
}

// blankLine returns a line to which [number] gives a number.
func blankLine() []byte {
	line := bytes.Repeat([]byte("."), lineSize)
	line[lineSize-1] = '\n'
	return line
}

func number(line []byte, n int) { copy(line, fmt.Sprintf("%012d", n)) }

type writeAnswer struct {
	Lines int
	Took  time.Duration
	P99   time.Duration // of one write
}

// childWrite is a worker that writes lines to its output and measures that. Its arguments are a folder, where the file
// stopFile ends it, and the number of lines, or 0.
func childWrite(c *childIO) error {
	stop := filepath.Join(c.args[0], stopFile)
	limit, err := strconv.Atoi(c.args[1])
	if err != nil {
		return err
	}
	took := make([]time.Duration, 0, 32<<20) // growing would be measured
	line := blankLine()
	began := time.Now()
	for at := began; limit == 0 || len(took) < limit; {
		if limit == 0 && len(took)%10_000 == 0 {
			if _, err := os.Stat(stop); err == nil {
				break
			}
		}
		number(line, len(took)+1)
		if _, err := os.Stdout.Write(line); err != nil {
			return err
		}
		now := time.Now()
		took = append(took, now.Sub(at))
		at = now
	}
	answer := writeAnswer{Lines: len(took), Took: time.Since(began)}
	slices.Sort(took)
	answer.P99 = quantile(took, 0.99)
	text, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	result := filepath.Join(c.args[0], resultFile)
	if err := os.WriteFile(result+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(result+".new", result)
}
