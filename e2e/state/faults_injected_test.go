//go:build e2e && linux

package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// faults makes selected acts of a running master fail: see package crashpoint.
type faults struct {
	t   *testing.T
	dir string
}

func (f faults) set(errno string, points ...string) {
	f.t.Helper()
	for _, p := range points {
		// Atomically: a partial name would be another error.
		path := filepath.Join(f.dir, p)
		err := os.WriteFile(path+".new", []byte(errno), 0o600)
		if err = errors.Join(err, os.Rename(path+".new", path)); err != nil {
			f.t.Fatal(err)
		}
	}
}

func (f faults) clear() {
	f.t.Helper()
	entries, err := os.ReadDir(f.dir)
	for _, e := range entries {
		if e := os.Remove(filepath.Join(f.dir, e.Name())); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// Each act that makes data durable fails, and so does each step of rewriting the state: no request is acknowledged
// until the rewrite succeeds, and then everything continues.
func TestNothingIsAcknowledgedAfterAFailedActUntilTheStateIsWrittenAnew(t *testing.T) {
	t.Parallel()
	texts := map[string]string{
		"EIO": unix.EIO.Error(), "ENOSPC": unix.ENOSPC.Error(), "EROFS": unix.EROFS.Error(),
		"EDQUOT": unix.EDQUOT.Error(), "EMFILE": unix.EMFILE.Error(),
	}
	var anew []string // the steps of rewriting it
	for _, file := range []crashpoint.Point{crashpoint.Rewrite, crashpoint.Counter} {
		for _, p := range file.Steps() {
			anew = append(anew, string(p))
		}
	}
	anew = append(anew, string(crashpoint.Repair))
	for mode, fails := range map[string][]string{
		"always": {
			string(crashpoint.Count), string(crashpoint.CountSync), crashpoint.CountSync.After(),
			string(crashpoint.Commit), crashpoint.Commit.After(),
		},
		"interval": {
			string(crashpoint.Count), string(crashpoint.CountSync), string(crashpoint.Commit),
		},
	} {
		t.Run("sync "+mode, func(t *testing.T) {
			t.Parallel()
			h := harness.NewHost(t)
			f := faults{t, filepath.Join(h.Dir, "faults")}
			if err := os.Mkdir(f.dir, 0o700); err != nil {
				t.Fatal(err)
			}
			h.Flags = append(harness.Workers(steady), "--sync", mode)
			m := h.Launch(h.Program, []string{"HSU_FAULT_DIR=" + f.dir})
			m.AwaitServing()
			before := awaitSteady(h, harness.Worker.Running)
			load := h.StartLoad(8)
			errnos := []string{"EIO", "ENOSPC", "EROFS", "EDQUOT", "EMFILE"}
			for i := range max(len(fails), len(anew)) {
				first, then, errno := fails[i%len(fails)], anew[i%len(anew)], errnos[i%len(errnos)]
				load.AwaitMore(20)
				f.set(errno, then)
				f.set(errno, first)
				awaitRefusal(h, texts[errno])
				wantOutage(h, load, outage{reason: texts[errno]}, before)
				f.clear()
				if t.Failed() {
					t.Fatalf("after %s of %s and then %s", errno, first, then)
				}
			}
			load.AwaitMore(20)
			load.Stop()
			wantCounted(h, load)
			awaitSteady(h, harness.Worker.Running).WantInstances(t, before.Instances())
			m.Stop()
			h.WantNothingLeft()
		})
	}
}
