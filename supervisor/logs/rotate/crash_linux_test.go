package rotate

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/safefile"
	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/logs/layout"
)

// points returns the points that a rotation with a method passes.
func points(frees method) []crashpoint.Point {
	all := []crashpoint.Point{
		crashpoint.LogCopy.Write(), crashpoint.LogCopy.Sync(), crashpoint.LogCopy.SyncFolder(),
		crashpoint.LogMark, crashpoint.LogMarkSync, crashpoint.LogCopy.Rename(),
	}
	switch frees {
	case collapses:
		return append(all, crashpoint.LogBlank, crashpoint.LogBlankSync, crashpoint.LogCollapse)
	case punches:
		return append(all, crashpoint.LogPunch, crashpoint.LogPunchSync, crashpoint.LogUnmark)
	default:
		return append(all, crashpoint.LogTruncate, crashpoint.LogRest)
	}
}

// moments returns the moments at which a master can be killed.
func moments(frees method) (all []string) {
	for _, p := range points(frees) {
		all = append(all, p.Before()+":1", p.After()+":1", p.Before()+":3")
	}
	return all
}

// killedAt runs a master that is killed at a moment.
func killedAt(t *testing.T, role, path, moment string, env ...string) {
	t.Helper()
	err := again(role, path, append(env, envMoment+"="+moment)...).Run()
	exit := new(exec.ExitError)
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("a master to be killed at %s: %v", moment, err)
	}
}

// recovers runs a master that recovers a log.
func recovers(t *testing.T, path string, env ...string) {
	t.Helper()
	if err := again("rotate", path, env...).Run(); err != nil {
		t.Fatalf("a master that is not killed: %v", err)
	}
}

// withoutRaceDetector leaves a test of processes that are killed to the run without the race detector.
func withoutRaceDetector(t *testing.T) {
	t.Helper()
	if raced {
		t.Skip("the processes of this test are tested without the race detector")
	}
}

func seed(t *testing.T) *rand.Rand {
	n, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64)
	if err != nil {
		n = rand.Uint64()
	}
	t.Logf("SEED=%d", n)
	return rand.New(rand.NewPCG(n, 0))
}

// A master is killed at every moment of a rotation, and in the recovery from that, while writers never pause.
func TestKilled(t *testing.T) {
	withoutRaceDetector(t)
	rng := seed(t)
	onFileSystems(t, func(t *testing.T, dir string, frees method) {
		if frees == truncates {
			t.Skip("loses lines that are written at the moment of the truncation")
		}
		killEverywhere(t, rng, filepath.Join(dir, "w.log"), moments(frees), 3)
	})
}

// A writer without O_APPEND keeps its offset, so that the log is punched on all file systems.
func TestKilledWithAnOffset(t *testing.T) {
	withoutRaceDetector(t)
	rng := seed(t)
	onFileSystems(t, func(t *testing.T, dir string, frees method) {
		if frees == truncates {
			t.Skip("a truncation leaves a hole before the offset of the writer")
		}
		killEverywhere(t, rng, filepath.Join(dir, "w.log"), moments(punches), 1, envOffset+"=1")
	})
}

func killEverywhere(t *testing.T, rng *rand.Rand, path string, moments []string, writers int, env ...string) {
	w := startWriters(t, path, writers, slices.Contains(env, envOffset+"=1"))
	for _, first := range moments {
		second := moments[rng.IntN(len(moments))]
		t.Log(first, second)
		killedAt(t, "rotate", path, first, env...)
		killedAt(t, "rotate", path, second, env...)
		recovers(t, path, env...)
		w.collect()
	}
	recovers(t, path, env...)
	w.stop()
}

// The power fails at every moment of a rotation. Lines that were on the disk are there afterwards, once.
func TestPowerLoss(t *testing.T) {
	withoutRaceDetector(t)
	for _, kind := range []string{"ext4", "xfs"} {
		for _, method := range []method{collapses, punches} {
			t.Run(fmt.Sprintf("%s/%d", kind, method), func(t *testing.T) {
				options := map[string][]string{"ext4": {"-q", "-F"}, "xfs": {"-q"}}
				dir := mountImage(t, kind, options[kind]...)
				var env []string
				if method == punches {
					env = append(env, envOffset+"=1")
				}
				for _, moment := range moments(method) {
					if strings.HasSuffix(moment, ":1") {
						losePowerAt(t, kind, dir, moment, env...)
					}
				}
			})
		}
	}
}

func losePowerAt(t *testing.T, kind, dir, moment string, env ...string) {
	t.Helper()
	path := filepath.Join(dir, moment+".log")
	f := create(t, path)
	last := fill(t, f, 1, 200_000) - 1
	if err := errors.Join(f.Sync(), f.Close(), safefile.SyncDir(dir)); err != nil {
		t.Fatal(err)
	}
	killedAt(t, "rotate", path, moment, append(env, envPower+"=1")...)
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	awaitDetached(t, dir+".image")
	if err := mountLoop(kind, dir+".image", dir); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		recovers(t, path, env...)
	}
	t.Log(moment)
	checkLines(t, path, last)
}

// A master that is killed while it compresses and removes rotated files loses none that is to be kept.
func TestKilledWhileTidying(t *testing.T) {
	withoutRaceDetector(t)
	remove := crashpoint.LogRemove // the oldest file, then those whose compressed form is complete
	moments := []string{remove.Before() + ":1", remove.After() + ":1", remove.Before() + ":2", remove.After() + ":4"}
	for _, p := range crashpoint.LogCompress.Steps() {
		moments = append(moments, p.Before()+":1", p.After()+":1", p.After()+":3")
	}
	for _, moment := range moments {
		t.Run(moment, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "w.log")
			next, first := 1, 0
			for n := range uint64(4) {
				if n == 1 {
					first = next
				}
				f := create(t, layout.RotatedPath(path, n+1))
				next = fill(t, f, next, 100_000)
			}
			create(t, path)
			killedAt(t, "tidy", path, moment)
			l := Log{Path: path, Policy: logs.Policy{Keep: 3, Compress: true}}
			if err := tidy(t.Context(), l, steps{}); err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(rotated(t, path)); got != "[2.gz 3.gz 4.gz]" {
				t.Errorf("%s, want the last three, compressed", got)
			}
			w := &writers{t: t, path: path, read: map[string]int{"0": first - 1}}
			w.stop()
			if w.read["0"] != next-1 {
				t.Errorf("the last line is %d, want %d", w.read["0"], next-1)
			}
		})
	}
}
