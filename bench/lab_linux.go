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
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/supervisor/process"
)

// lab is what the experiments share.
type lab struct {
	dir                    string // for all that is made
	masterPath, workerPath string
	benchPath              string // of this program, for what runs beside it
	rounds                 int
	quick                  bool
	calm                   time.Duration // to wait for, at most, before a round
	restless               int           // how often it did not come
	wants                  map[string]bool
	progress               io.Writer
	peers                  map[string]foundPeer // that were looked for
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
	{"killed workers", []string{rowRespawn}, respawn},
	{"forwarded calls, 1 caller", []string{rowForward1}, forward1},
	{"forwarded calls, 8 callers", []string{rowForward8}, forward8},
	{"forwarded calls, 64 callers", []string{rowForward64, rowForwardCPU}, forward64},
	{"forwarded calls, 256 callers", []string{rowForward256}, forward256},
	{"forwarded calls of 4 KiB", []string{rowForwardCPU4K}, forward4K},
	{"counted calls forwarded, 64 callers", []string{rowForwardCounted64}, forwardCounted64},
	{"counted calls forwarded, 256 callers", []string{rowForwardCounted256}, forwardCounted256},
	{"one large stream", []string{rowForwardBulk, rowForwardBulkRSS}, forwardBulk},
	{"idle streams", []string{rowForwardIdle}, forwardIdle},
	{"many connections", []string{rowForwardCrowd}, forwardCrowd},
}

// measure runs what the options ask for. Nothing of it is left when it returns.
func measure(ctx context.Context, opts options, progress io.Writer) (_ report, err error) {
	started := time.Now()
	l := &lab{rounds: opts.rounds, quick: opts.quick, calm: opts.calm, wants: wanted(opts.rows), progress: progress}
	if err := l.open(ctx, opts); err != nil {
		return report{}, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	result := report{Started: started, Rounds: l.rounds, Quick: l.quick}
	if result.Host, err = thisHost(opts.dir); err != nil {
		return report{}, err
	}
	before, err := processors()
	if err != nil {
		return report{}, err
	}
	byKey := make(map[string]row)
	for _, e := range experiments {
		if !slices.ContainsFunc(e.rows, func(key string) bool { return l.wants[key] }) {
			continue
		}
		rows, err := e.run(ctx, l)
		if err != nil {
			return report{}, fmt.Errorf("%s: %w", e.name, err)
		}
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
	return result, err
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
	l.masterPath, l.workerPath, l.benchPath = filepath.Join(bin, "hsu-master"), filepath.Join(bin, "hsu-worker"), filepath.Join(bin, "bench")
	for _, path := range []string{l.masterPath, l.workerPath, l.benchPath} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("find the product: %w", err)
		}
	}
	return nil
}

// build builds the product as "make build" does, and the baselines, which are in
// this program, no worse.
func (l *lab) build(ctx context.Context, dir string) error {
	l.say("building the product and the baselines")
	const module = "github.com/core-tools/hsu-master/"
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-tags", releaseTags, "-ldflags", "-s -w",
		"-o", dir+string(filepath.Separator), module+"cmd/hsu-master", module+"cmd/hsu-worker", module+"bench")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the product: %w\n%s", err, out)
	}
	return nil
}

// close removes every trace. A master that was killed, or that did not stop, has
// left workers.
func (l *lab) close() error {
	return errors.Join(l.killStrays(), os.RemoveAll(l.dir))
}

// killStrays ends every worker whose master's state is in this lab's folder.
func (l *lab) killStrays() error {
	ours := make(map[string]bool)
	states, err := filepath.Glob(filepath.Join(l.dir, "state-*"))
	if err != nil {
		return fmt.Errorf("look for workers that were left: %w", err)
	}
	for _, dir := range states {
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err == nil {
			ours[process.FileID{Device: uint64(st.Dev), Inode: st.Ino}.String()] = true //nolint:unconvert // narrower on some machines
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

// kill ends the process if it is the instance with this token.
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

// pause lets time pass; ctx ends it.
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

// span is long, or short where only the program itself is tried out.
func (l *lab) span(long, short time.Duration) time.Duration {
	if l.quick {
		return short
	}
	return long
}

func (l *lab) say(format string, args ...any) {
	fmt.Fprintf(l.progress, "bench: "+format+"\n", args...)
}
