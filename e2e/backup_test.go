//go:build e2e && linux

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/migrations"
)

// backedUp is the output of "state backup --json".
type backedUp struct {
	Source         string `json:"source"`
	Bytes          int64  `json:"bytes"`
	Sequence       uint64 `json:"sequence"`
	ProcessedCount int64  `json:"processed_count"`
	Workers        int    `json:"workers"`
}

// wantSound fails if the check of the state, or of a file, finds a fault.
func (h *host) wantSound(source string, file ...string) {
	h.t.Helper()
	r := h.cli(append([]string{"state", "check", "--json"}, file...)...)
	var found struct {
		OK       bool   `json:"ok"`
		Source   string `json:"source"`
		Problems []struct{ Severity, Where, What string }
	}
	if err := json.Unmarshal([]byte(r.stdout), &found); err != nil {
		h.t.Fatalf("state check: %d, %v\n%s%s", r.code, err, r.stdout, r.stderr)
	}
	if r.code != 0 || !found.OK || found.Source != source {
		h.t.Errorf("state check: %d, %+v, want it sound and %s", r.code, found, source)
	}
}

func (h *host) backup(file string) backedUp {
	h.t.Helper()
	r := h.cli("state", "backup", file, "--json")
	var s backedUp
	if err := json.Unmarshal([]byte(r.stdout), &s); err != nil || r.code != 0 {
		h.t.Fatalf("state backup: %d, %v\n%s", r.code, err, r.stderr)
	}
	return s
}

// Under load, each backup holds at least the requests acknowledged before it, and no request fails because of it.
func TestBackupOfARunningMasterHoldsAllThatWasAcknowledged(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(3)...)
	m := h.start()
	h.awaitRunning(3)
	load := h.startLoad(8)
	last := uint64(0)
	for i := range 10 {
		load.awaitMore(20)
		before := load.acked.Load()
		file := filepath.Join(h.dir, "backup"+strconv.Itoa(i))
		s := h.backup(file)
		if sent := load.sent.Load(); s.ProcessedCount < before || s.ProcessedCount > sent || s.Workers != 3 ||
			s.Source != "live" || s.Sequence <= last {
			t.Errorf("%+v, want a count of %d to %d, 3 workers, and a sequence above %d", s, before, sent, last)
		}
		last = s.Sequence
		h.wantSound("file", file)
		h.wantSound("live")
	}
	load.stop()
	if failed := load.sent.Load() - load.acked.Load(); failed != 0 {
		t.Errorf("%d requests were not acknowledged", failed)
	}
	m.stop()
	h.wantSound("offline")
	h.wantNothingLeft()
}

func TestRestoreUnderLivingWorkersTouchesNoneOfThem(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(3)...)
	m := h.start()
	before := h.awaitRunning(3)
	h.ask("one")
	old := filepath.Join(h.dir, "old")
	h.backup(old)
	h.killWorker(before.worker(t, "worker-0").PID)
	before = h.awaitWorkers(3, "run, one of them anew", func(d dump, w worker) bool {
		return running(d, w) && (w.Restarts == 1) == (w.ID == "worker-0")
	})
	h.ask("two")
	if r := h.cli("state", "restore", old); r.code != 4 {
		t.Errorf("under a running master: exit code %d, want 4\n%s", r.code, r.stderr)
	}
	m.kill()
	if r := h.cli("state", "restore", old); r.code != 0 {
		t.Fatalf("restore: %d\n%s", r.code, r.stderr)
	}
	m = h.start() // it refuses a damaged state
	after := h.awaitRunning(3)
	for _, w := range after.Workers {
		if was := before.worker(t, w.ID); w.PID != was.PID || w.Token != was.Token || w.Port != was.Port || !w.Adopted {
			t.Errorf("%+v, want it adopted as it was: %+v", w, was)
		}
	}
	if after.ProcessedCount != 2 {
		t.Errorf("processed_count = %d, want 2: the larger one", after.ProcessedCount)
	}
	h.wantNoTwin(after)
	m.stop()
	h.wantSound("offline")
	h.wantNothingLeft()
}

// A state restored elsewhere on the same host does not command the original's workers.
func TestRestoreElsewhereLeavesTheOriginalsWorkersAlone(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(2)...)
	m := h.start()
	before := h.awaitRunning(2)
	file := filepath.Join(h.dir, "copy")
	h.backup(file)

	other := newHost(t, workers(2)...)
	if r := other.cli("state", "restore", file); r.code != 0 {
		t.Fatalf("restore: %d\n%s", r.code, r.stderr)
	}
	second := other.start()
	theirs := other.awaitRunning(2)
	for _, w := range theirs.Workers {
		if w.PID == before.worker(t, w.ID).PID || w.Adopted {
			t.Errorf("the copy has taken over %+v", w)
		}
	}
	second.stop()
	other.wantNothingLeft()
	if diff := cmp.Diff(before.instances(t), h.awaitRunning(2).instances(t)); diff != "" {
		t.Errorf("the original's workers are not what they were (-before +after):\n%s", diff)
	}
	m.stop()
	h.wantNothingLeft()
}

func TestMasterBacksItselfUpWhileSomethingChanges(t *testing.T) {
	t.Parallel()
	h := newHost(t, append(workers(1), "--backup-interval", "1s", "--backup-keep", "3")...)
	m := h.start()
	h.awaitRunning(1)
	first := func() string {
		if all := h.backups(); len(all) > 0 {
			return all[0]
		}
		return ""
	}
	begin := ""
	waitFor(t, "the first backup", func() error {
		if begin = first(); begin == "" {
			return errors.New("there is none")
		}
		return nil
	})
	waitFor(t, "old backups go and new ones come", func() error {
		h.ask("something changes")
		if n := len(h.backups()); n != 3 || first() == begin {
			return fmt.Errorf("there are %d, the first is %s", n, first())
		}
		return nil
	})
	m.stop() // another backup would remove the oldest one while it is checked
	for _, file := range h.backups() {
		h.wantSound("file", file)
		if fi, err := os.Stat(file); err != nil || fi.Mode() != 0o600 {
			t.Errorf("mode %s, %v", fi.Mode(), err)
		}
	}
	h.wantNothingLeft()
}

func TestMigrationIsRehearsedOnACopyAndDoneAfterABackup(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(1)...)
	m := h.start()
	before := h.awaitRunning(1)
	h.ask("one")
	// A release with two more migration steps.
	now := migrations.Current()
	migrate := func(flags ...string) (code int, found struct {
		DryRun   bool `json:"dry_run"`
		From, To uint64
		Steps    []string
		Copy     string
	},
	) {
		t.Helper()
		cmd := exec.Command(programs.master,
			append([]string{"state", "migrate", "--json", "--state-dir", h.state}, flags...)...)
		cmd.Env = append(cleanEnviron(), "HSU_LATER_STEPS=2")
		out, err := cmd.Output()
		if exit, failed := errors.AsType[*exec.ExitError](err); failed {
			return exit.ExitCode(), found
		}
		if err := errors.Join(err, json.Unmarshal(out, &found)); err != nil {
			t.Fatal(err)
		}
		return 0, found
	}
	code, found := migrate("--dry-run")
	if code != 0 || !found.DryRun || found.From != now || found.To != now+2 ||
		len(found.Steps) != 2 || found.Copy != "" {
		t.Errorf("under a running master, rehearsed: %d, %+v", code, found)
	}
	if code, _ := migrate(); code != 4 {
		t.Errorf("under a running master: exit code %d, want 4", code)
	}
	m.kill()
	if code, found = migrate("--dry-run"); code != 0 || found.To != now+2 {
		t.Errorf("rehearsed: %d, %+v", code, found)
	}
	if got := h.dump(); got.SchemaVersion != int(now) {
		t.Errorf("after the rehearsals the schema is %d", got.SchemaVersion)
	}
	if code, found = migrate(); code != 0 || found.From != now || found.To != now+2 || found.Copy == "" {
		t.Fatalf("migrated: %d, %+v", code, found)
	}
	h.wantSound("file", found.Copy)
	if r := h.cli("state", "dump"); r.code != 1 {
		t.Errorf("this release reads the newer schema: %d\n%s", r.code, r.stdout)
	}
	// Return to the version that this release knows, while the worker lives.
	if r := h.cli("state", "restore", found.Copy); r.code != 0 {
		t.Fatalf("restore: %d\n%s", r.code, r.stderr)
	}
	m = h.start()
	after := h.awaitRunning(1)
	if diff := cmp.Diff(before.instances(t), after.instances(t)); diff != "" || after.ProcessedCount != 1 {
		t.Errorf("processed_count = %d; the worker is not what it was (-before +after):\n%s",
			after.ProcessedCount, diff)
	}
	m.stop()
	h.wantNothingLeft()
}
