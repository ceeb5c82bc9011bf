//go:build e2e && linux

package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

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
			h := newHost(t)
			f := faults{t, filepath.Join(h.dir, "faults")}
			if err := os.Mkdir(f.dir, 0o700); err != nil {
				t.Fatal(err)
			}
			h.flags = append(workers(steady), "--sync", mode)
			m := h.launch(h.program, []string{"HSU_FAULT_DIR=" + f.dir})
			m.awaitServing()
			before := h.awaitSteady(running)
			load := h.startLoad(8)
			errnos := []string{"EIO", "ENOSPC", "EROFS", "EDQUOT", "EMFILE"}
			for i := range max(len(fails), len(anew)) {
				first, then, errno := fails[i%len(fails)], anew[i%len(anew)], errnos[i%len(errnos)]
				load.awaitMore(20)
				f.set(errno, then)
				f.set(errno, first)
				h.awaitRefusal(texts[errno])
				h.wantOutage(load, outage{reason: texts[errno]}, before)
				f.clear()
				if t.Failed() {
					t.Fatalf("after %s of %s and then %s", errno, first, then)
				}
			}
			load.awaitMore(20)
			load.stop()
			h.wantCounted(load)
			if after := h.awaitSteady(running); fmt.Sprint(after.instances(t)) != fmt.Sprint(before.instances(t)) {
				t.Errorf("the workers are %v, and were %v", after.instances(t), before.instances(t))
			}
			m.stop()
			h.wantNothingLeft()
		})
	}
}
