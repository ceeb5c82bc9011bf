//go:build e2e && linux

package state

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

	"github.com/core-tools/hsu-master/e2e/harness"
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
func wantSound(h *harness.Host, source string, file ...string) {
	h.T.Helper()
	r := h.CLI(append([]string{"state", "check", "--json"}, file...)...)
	var found struct {
		OK       bool   `json:"ok"`
		Source   string `json:"source"`
		Problems []struct{ Severity, Where, What string }
	}
	if err := json.Unmarshal([]byte(r.Stdout), &found); err != nil {
		h.T.Fatalf("state check: %d, %v\n%s%s", r.Code, err, r.Stdout, r.Stderr)
	}
	if r.Code != 0 || !found.OK || found.Source != source {
		h.T.Errorf("state check: %d, %+v, want it sound and %s", r.Code, found, source)
	}
}

func backup(h *harness.Host, file string) backedUp {
	h.T.Helper()
	r := h.CLI("state", "backup", file, "--json")
	var s backedUp
	if err := json.Unmarshal([]byte(r.Stdout), &s); err != nil || r.Code != 0 {
		h.T.Fatalf("state backup: %d, %v\n%s", r.Code, err, r.Stderr)
	}
	return s
}

// Under load, each backup holds at least the requests acknowledged before it, and no request fails because of it.
func TestBackupOfARunningMasterHoldsAllThatWasAcknowledged(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(3)...)
	m := h.Start()
	h.AwaitRunning(3)
	load := h.StartLoad(8)
	last := uint64(0)
	for i := range 10 {
		load.AwaitMore(20)
		before := load.Acked.Load()
		file := filepath.Join(h.Dir, "backup"+strconv.Itoa(i))
		s := backup(h, file)
		if sent := load.Sent.Load(); s.ProcessedCount < before || s.ProcessedCount > sent || s.Workers != 3 ||
			s.Source != "live" || s.Sequence <= last {
			t.Errorf("%+v, want a count of %d to %d, 3 workers, and a sequence above %d", s, before, sent, last)
		}
		last = s.Sequence
		wantSound(h, "file", file)
		wantSound(h, "live")
	}
	load.Stop()
	if failed := load.Sent.Load() - load.Acked.Load(); failed != 0 {
		t.Errorf("%d requests were not acknowledged", failed)
	}
	m.Stop()
	wantSound(h, "offline")
	h.WantNothingLeft()
}

func TestRestoreUnderLivingWorkersTouchesNoneOfThem(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(3)...)
	m := h.Start()
	before := h.AwaitRunning(3)
	h.Ask("one")
	old := filepath.Join(h.Dir, "old")
	backup(h, old)
	h.KillWorker(before.Worker(t, "worker-0").PID)
	before = h.AwaitWorkers(3, "run, one of them anew", func(w harness.Worker) bool {
		return w.Running() && (w.Restarts == 1) == (w.ID == "worker-0")
	})
	h.Ask("two")
	if r := h.CLI("state", "restore", old); r.Code != 4 {
		t.Errorf("under a running master: exit code %d, want 4\n%s", r.Code, r.Stderr)
	}
	m.Kill()
	if r := h.CLI("state", "restore", old); r.Code != 0 {
		t.Fatalf("restore: %d\n%s", r.Code, r.Stderr)
	}
	m = h.Start() // it refuses a damaged state
	after := h.AwaitRunning(3)
	for _, w := range after.Workers {
		if was := before.Worker(t, w.ID); w.PID != was.PID || w.Token != was.Token || w.Port != was.Port || !w.Adopted {
			t.Errorf("%+v, want it adopted as it was: %+v", w, was)
		}
	}
	if after.ProcessedCount != 2 {
		t.Errorf("processed_count = %d, want 2: the larger one", after.ProcessedCount)
	}
	h.WantNoTwin(after)
	m.Stop()
	wantSound(h, "offline")
	h.WantNothingLeft()
}

// A state restored elsewhere on the same host does not command the original's workers.
func TestRestoreElsewhereLeavesTheOriginalsWorkersAlone(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(2)...)
	m := h.Start()
	before := h.AwaitRunning(2)
	file := filepath.Join(h.Dir, "copy")
	backup(h, file)

	other := harness.NewHost(t, harness.Workers(2)...)
	if r := other.CLI("state", "restore", file); r.Code != 0 {
		t.Fatalf("restore: %d\n%s", r.Code, r.Stderr)
	}
	second := other.Start()
	theirs := other.AwaitRunning(2)
	for _, w := range theirs.Workers {
		if w.PID == before.Worker(t, w.ID).PID || w.Adopted {
			t.Errorf("the copy has taken over %+v", w)
		}
	}
	second.Stop()
	other.WantNothingLeft()
	h.AwaitRunning(2).WantInstances(t, before.Instances())
	m.Stop()
	h.WantNothingLeft()
}

func TestMasterBacksItselfUpWhileSomethingChanges(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, append(harness.Workers(1), "--backup-interval", "1s", "--backup-keep", "3")...)
	m := h.Start()
	h.AwaitRunning(1)
	first := func() string {
		if all := backups(h); len(all) > 0 {
			return all[0]
		}
		return ""
	}
	begin := ""
	harness.WaitFor(t, "the first backup", func() error {
		if begin = first(); begin == "" {
			return errors.New("there is none")
		}
		return nil
	})
	harness.WaitFor(t, "old backups go and new ones come", func() error {
		h.Ask("something changes")
		if n := len(backups(h)); n != 3 || first() == begin {
			return fmt.Errorf("there are %d, the first is %s", n, first())
		}
		return nil
	})
	m.Stop() // another backup would remove the oldest one while it is checked
	for _, file := range backups(h) {
		wantSound(h, "file", file)
		if fi, err := os.Stat(file); err != nil || fi.Mode() != 0o600 {
			t.Errorf("mode %s, %v", fi.Mode(), err)
		}
	}
	h.WantNothingLeft()
}

func TestMigrationIsRehearsedOnACopyAndDoneAfterABackup(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(1)...)
	m := h.Start()
	before := h.AwaitRunning(1)
	h.Ask("one")
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
		cmd := exec.Command(harness.Programs.Master,
			append([]string{"state", "migrate", "--json", "--state-dir", h.State}, flags...)...)
		cmd.Env = append(harness.CleanEnviron(), "HSU_LATER_STEPS=2")
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
	m.Kill()
	if code, found = migrate("--dry-run"); code != 0 || found.To != now+2 {
		t.Errorf("rehearsed: %d, %+v", code, found)
	}
	if got := h.Dump(); got.SchemaVersion != int(now) {
		t.Errorf("after the rehearsals the schema is %d", got.SchemaVersion)
	}
	if code, found = migrate(); code != 0 || found.From != now || found.To != now+2 || found.Copy == "" {
		t.Fatalf("migrated: %d, %+v", code, found)
	}
	wantSound(h, "file", found.Copy)
	if r := h.CLI("state", "dump"); r.Code != 1 {
		t.Errorf("this release reads the newer schema: %d\n%s", r.Code, r.Stdout)
	}
	// Return to the version that this release knows, while the worker lives.
	if r := h.CLI("state", "restore", found.Copy); r.Code != 0 {
		t.Fatalf("restore: %d\n%s", r.Code, r.Stderr)
	}
	m = h.Start()
	after := h.AwaitRunning(1)
	if diff := cmp.Diff(before.Instances(), after.Instances()); diff != "" || after.ProcessedCount != 1 {
		t.Errorf("processed_count = %d; the worker is not what it was (-before +after):\n%s",
			after.ProcessedCount, diff)
	}
	m.Stop()
	h.WantNothingLeft()
}
