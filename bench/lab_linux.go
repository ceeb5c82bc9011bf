package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// lab is the common state of the experiments.
type lab struct {
	dir                    string // parent of all files of the run
	masterPath, workerPath string
	benchPath              string // this program, for its child parts
	stubPath               string // the smallest worker
	rounds                 int
	quick                  bool
	calm                   time.Duration // the longest wait for a calm machine before a round
	restless               int           // number of waits that were in vain
	wants                  map[string]bool
	progress               io.Writer
	peers                  map[string]foundPeer // results of the searches for peers
}

// experiments each measure some rows.
var experiments = []struct {
	name string
	rows []string
	run  func(context.Context, *lab) ([]row, error)
}{
	{"durable calls, 64 callers", []string{rowAlways64, rowInterval64, rowCPU}, counted64},
	{"durable calls, 256 callers", []string{rowAlways256, rowInterval256}, counted256},
	{"one caller", []string{rowLatency}, latency},
	{"a hundred workers", []string{rowColdStart, rowReattach, rowRSS, rowIdleCPU}, fleet},
	{"a start with stored results", []string{rowStartResults}, startOnResults},
	{"killed workers", []string{rowRespawn}, respawn},
	{"a file of units", []string{rowLoad, rowLoadGrowth}, loadFile},
	{"a hundred units", []string{rowColdStartUnits}, startUnits},
	{"a hundred idle units", []string{rowIdleCPUMixed}, idleUnits},
	{"commands", []string{rowList, rowListGrowth, rowTop}, commands},
	{"growth", []string{
		rowIdleScrape, rowGrowthStart, rowGrowthStartCPU, rowGrowthReattach, rowGrowthIdle, rowGrowthRSS, rowGrowthList,
		rowGrowthScrape, rowGrowthGoroutines, rowGrowthFiles,
	}, grow},
	{"a rotated log", []string{rowRotate, rowRotateWrite}, rotatePlain},
	{"a rotated log, compressed", []string{rowRotateGzip, rowRotateGzipWrite}, rotateGzip},
	{"followed logs", []string{rowLogsFollow}, followLogs},
	{"forwarded calls, 1 caller", []string{rowForward1}, forward1},
	{"forwarded calls, 8 callers", []string{rowForward8}, forward8},
	{"forwarded calls, 64 callers", []string{rowForward64, rowForwardCPU}, forward64},
	{"forwarded calls, 256 callers", []string{rowForward256}, forward256},
	{"forwarded calls of 4 KiB", []string{rowForwardCPU4K}, forward4K},
	{"counted calls forwarded, 64 callers", []string{rowForwardCounted64}, forwardCounted64},
	{"counted calls forwarded, 256 callers", []string{rowForwardCounted256}, forwardCounted256},
	{"forwarded calls of 10 MB", []string{rowForwardHuge, rowForwardCPUHuge}, forwardHuge},
	{"forwarded calls by TLS", []string{rowForwardTLS, rowForwardTLSCPU}, forwardSecure},
	{"registrations", []string{rowForwardChurn, rowForwardChurnP99}, forwardChurn},
	{"one large stream", []string{rowForwardBulk, rowForwardBulkRSS}, forwardBulk},
	{"idle streams", []string{rowForwardIdle}, forwardIdle},
	{"many connections", []string{rowForwardCrowd}, forwardCrowd},
}

// fewerRounds limits the rounds of experiments that take long or vary little, if --rounds is not given.
var fewerRounds = map[string]int{
	"durable calls, 256 callers":           5,
	"a hundred workers":                    5,
	"a file of units":                      3,
	"a hundred idle units":                 3,
	"commands":                             3,
	"growth":                               2,
	"followed logs":                        3,
	"forwarded calls, 1 caller":            3,
	"forwarded calls, 8 callers":           5,
	"forwarded calls, 256 callers":         5,
	"forwarded calls of 4 KiB":             3,
	"counted calls forwarded, 256 callers": 3,
	"forwarded calls of 10 MB":             3,
	"forwarded calls by TLS":               5,
	"registrations":                        5,
	"one large stream":                     2,
	"idle streams":                         2,
	"many connections":                     3,
}

// measure runs the requested experiments. It leaves no files or processes behind. If an experiment fails, the report
// has the rows of the others.
func measure(ctx context.Context, opts options, progress io.Writer) (_ report, err error) {
	started := time.Now()
	l := &lab{quick: opts.quick, calm: opts.calm, wants: wanted(opts.rows), progress: progress}
	if err := l.open(ctx, opts); err != nil {
		return report{}, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	result := report{Started: started, Rounds: opts.rounds, Quick: l.quick}
	if result.Host, err = thisHost(opts.dir); err != nil {
		return report{}, err
	}
	before, err := processors()
	if err != nil {
		return report{}, err
	}
	byKey := make(map[string]row)
	var failures []error
	for _, e := range experiments {
		if !slices.ContainsFunc(e.rows, func(key string) bool { return l.wants[key] }) {
			continue
		}
		began := time.Now()
		l.rounds = opts.rounds
		if few, limited := fewerRounds[e.name]; limited && !opts.exactly {
			l.rounds = min(l.rounds, few)
		}
		rows, err := e.run(ctx, l)
		if err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", e.name, err))
		}
		if ctx.Err() != nil {
			break
		}
		result.Parts = append(result.Parts, part{e.name, l.rounds, time.Since(began).Seconds()})
		for _, r := range rows {
			byKey[r.key] = r
		}
	}
	for _, f := range figures {
		if r, measured := byKey[f.key]; measured && l.wants[f.key] {
			result.Rows = append(result.Rows, r)
		}
	}
	after, err := processors()
	if err != nil {
		return report{}, err
	}
	result.Restless = l.restless
	result.Host.Stolen = after.stolenSince(before)
	result.Host.LoadAfter, err = loadAverage()
	result.Took = time.Since(started).Seconds()
	return result, errors.Join(append(failures, err)...)
}

func (l *lab) open(ctx context.Context, opts options) (err error) {
	magic, name, err := fileSystem(opts.dir)
	if err != nil {
		return err
	}
	if magic == tmpfs {
		return fmt.Errorf("%s is on %s, where a sync costs nothing: name a folder on a disk with --dir", opts.dir, name)
	}
	if l.dir, err = os.MkdirTemp(opts.dir, "hsu-bench-"); err != nil {
		return fmt.Errorf("make a temporary folder: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(l.dir))
		}
	}()
	bin := opts.bin
	if bin == "" {
		bin = filepath.Join(l.dir, "bin")
		if err := l.build(ctx, bin); err != nil {
			return err
		}
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return fmt.Errorf("find the product: %w", err)
	}
	l.masterPath = filepath.Join(bin, "hsu-master")
	l.workerPath = filepath.Join(bin, "hsu-worker")
	l.benchPath, l.stubPath = filepath.Join(bin, "bench"), filepath.Join(bin, "stub")
	for _, path := range []string{l.masterPath, l.workerPath, l.benchPath, l.stubPath} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("find the product: %w", err)
		}
	}
	return nil
}

// build builds the product as "make build" does, and the baselines, which are in this program, with the same
// options. Each is built in its own module: the product with the dependencies that it is released with.
func (l *lab) build(ctx context.Context, dir string) error {
	l.say("building the product and the baselines")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of programs: %w", err)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("find the folder of programs: %w", err)
	}
	root, err := productDir(ctx)
	if err != nil {
		return err
	}
	for _, module := range []struct {
		dir      string
		packages []string
	}{
		{root, []string{"./cmd/hsu-master", "./cmd/hsu-worker"}},
		{filepath.Join(root, "bench"), []string{".", "./stub"}},
	} {
		cmd := exec.CommandContext(ctx, "go", append([]string{
			"build", "-trimpath", "-buildvcs=false",
			"-tags", releaseTags, "-ldflags", "-s -w", "-o", dir + string(filepath.Separator),
		}, module.packages...)...)
		cmd.Dir = module.dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build in %s: %w\n%s", module.dir, err, out)
		}
	}
	return nil
}

// productDir returns the folder of the product's module. The working directory must be in that module or in the
// module of this program, whose go.mod replaces the product with the folder that it is in.
func productDir(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/core-tools/hsu-master")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return "", fmt.Errorf("find the source of the product: %w: run in the repository, or name --bin\n%s",
			err, exit.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("find the source of the product: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// close removes every trace. A master that was killed, or that did not stop, leaves workers behind.
func (l *lab) close() error {
	return errors.Join(l.killStrays(), os.RemoveAll(l.dir))
}

// killStrays kills every worker whose master's state is in this lab's directory.
func (l *lab) killStrays() error {
	ours := make(map[string]bool)
	states, err := filepath.Glob(filepath.Join(l.dir, "state-*"))
	if err != nil {
		return fmt.Errorf("look for workers that were left: %w", err)
	}
	for _, dir := range states {
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err == nil {
			device := uint64(st.Dev) //nolint:unconvert // it has 32 bits on some machines
			ours[identity.FileID{Device: device, Inode: st.Ino}.String()] = true
		}
	}
	holders, err := process.Scan(context.Background())
	if err != nil {
		return fmt.Errorf("look for workers that were left: %w", err)
	}
	var errs []error
	for _, h := range holders {
		if ours[h.StateDir] {
			errs = append(errs, kill(h.PID, h.Token))
		}
	}
	return errors.Join(errs...)
}

// kill kills the process if it is the instance with this token.
func kill(pid int, token string) error {
	p, err := openWorker(pid, token)
	if err == nil {
		err = errors.Join(p.Signal(syscall.SIGKILL), p.Close())
	}
	if err != nil && !errors.Is(err, process.ErrGone) {
		return fmt.Errorf("kill worker process %d: %w", pid, err)
	}
	return nil
}

// openWorker opens a process that is proven to be the instance with this token.
func openWorker(pid int, token string) (*process.Process, error) {
	p, err := process.OpenPID(pid)
	if err != nil {
		return nil, err
	}
	if err := p.Verify(token); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// pause waits for d or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// span returns long, or short if the run only tries out the program itself.
func (l *lab) span(long, short time.Duration) time.Duration {
	if l.quick {
		return short
	}
	return long
}

func (l *lab) say(format string, args ...any) {
	fmt.Fprintf(l.progress, "bench: "+format+"\n", args...)
}
