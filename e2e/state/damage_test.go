//go:build e2e && linux

package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"
	protobuf "google.golang.org/protobuf/proto"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store/storepb"
)

// The master is killed, its state is damaged, and the next master starts.

// damaged is a host whose master was killed and whose newest backup is older than two of its four workers.
type damaged struct {
	*harness.Host
	before harness.Dump
	want   map[string]harness.Instance // the part of each worker that must survive
	decoy  *harness.Decoy              // has the PID that the backup names for worker-0
	asked  int64
}

// instances returns the facts that the process keeps; others are lost with the database.
func (d damaged) instances(of harness.Dump) map[string]harness.Instance {
	all := of.Instances()
	for id, i := range all {
		i.Incarnation, i.Restarts = 0, 0
		all[id] = i
	}
	return all
}

func killedWithAStaleBackup(t *testing.T) damaged {
	t.Helper()
	h := harness.NewHost(t, harness.Workers(4)...)
	m := h.Start()
	before := h.AwaitRunning(4)
	d := damaged{Host: h, decoy: h.StartDecoy(0)}
	harness.WaitFor(t, "the first backup is made", func() error {
		if len(backups(h)) == 0 {
			return errors.New("there is none")
		}
		return nil
	})
	for _, id := range []string{"worker-0", "worker-1"} {
		h.KillWorker(before.Worker(t, id).PID)
	}
	d.before = h.AwaitWorkers(4, "run, two of them anew", func(w harness.Worker) bool {
		return w.Running() && (w.Restarts == 1) == (w.ID == "worker-0" || w.ID == "worker-1")
	})
	for range 10 {
		h.Ask("counted")
		d.asked++
	}
	d.want = d.instances(d.before)
	m.Kill()
	d.staleBackup()
	return d
}

func backups(h *harness.Host) []string {
	paths, _ := filepath.Glob(filepath.Join(h.State, "backups", "*.db"))
	return paths
}

// staleBackup makes the backup's PID for worker-0 that of a foreign process.
func (d damaged) staleBackup() {
	d.T.Helper()
	d.editBackup(func(w *storepb.Worker, _ *storepb.Meta) {
		w.Status = storepb.Status_STATUS_RUNNING
		w.Instance.Pid, w.Instance.PidfdInode, w.Instance.Proof =
			int32(d.decoy.PID), 1, storepb.Proof_PROOF_PIDFD_INODE
	})
}

// editBackup changes the newest backup's record of worker-0, and its metadata.
func (d damaged) editBackup(edit func(*storepb.Worker, *storepb.Meta)) {
	d.T.Helper()
	backups := backups(d.Host)
	db, err := bolt.Open(backups[len(backups)-1], 0o600, nil)
	if err != nil {
		d.T.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		workers, id := tx.Bucket([]byte("workers")), []byte("worker-0")
		metas, record := tx.Bucket([]byte("meta")), []byte("record")
		var w storepb.Worker
		var m storepb.Meta
		if err := errors.Join(protobuf.Unmarshal(workers.Get(id), &w),
			protobuf.Unmarshal(metas.Get(record), &m)); err != nil {
			return err
		}
		edit(&w, &m)
		worker, err1 := protobuf.Marshal(&w)
		meta, err2 := protobuf.Marshal(&m)
		return errors.Join(err1, err2, workers.Put(id, worker), metas.Put(record, meta))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		d.T.Fatal(err)
	}
}

// spoil changes a file of the state.
func (d damaged) spoil(name string, change func(content []byte) []byte) {
	d.T.Helper()
	path := filepath.Join(d.State, name)
	content, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, change(content), 0o600)
	}
	if err != nil {
		d.T.Fatal(err)
	}
}

func garbage([]byte) []byte { return []byte("garbage\n") }

// inUse returns the length of a database without the zeros at its end.
func inUse(content []byte) int { return len(bytes.TrimRight(content, "\x00")) }

func TestMasterWithADamagedStateFindsAllWorkersAndTheCount(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(damaged)
		short bool // the count may be short, because every record of it is lost
		least int64
	}{
		"pages zeroed": {spoil: func(d damaged) {
			d.spoil("state.db", func(b []byte) []byte { clear(b[8192:inUse(b)]); return b })
		}, least: 10},
		"truncated": {spoil: func(d damaged) {
			d.spoil("state.db", func(b []byte) []byte { return b[:inUse(b)/2] })
		}, least: 10},
		"foreign":  {spoil: func(d damaged) { d.spoil("state.db", garbage) }, least: 10},
		"removed":  {spoil: func(d damaged) { d.remove("state.db") }, least: 10},
		"emptied":  {spoil: func(d damaged) { d.spoil("state.db", func([]byte) []byte { return nil }) }, least: 10},
		"a folder": {spoil: func(d damaged) { d.remove("state.db"); d.mkdir("state.db/x") }, least: 10},
		"without any backup": {spoil: func(d damaged) {
			d.spoil("state.db", garbage)
			d.remove("backups")
		}, least: 10},
		"with damaged backups": {spoil: func(d damaged) {
			d.spoil("state.db", garbage)
			for _, path := range backups(d.Host) {
				d.spoil(filepath.Join("backups", filepath.Base(path)), garbage)
			}
		}, least: 10},
		"with the counter": {spoil: func(d damaged) {
			d.spoil("state.db", garbage)
			d.spoil("counter.dat", garbage)
		}, short: true},
		"the counter alone": {spoil: func(d damaged) { d.spoil("counter.dat", garbage) }, short: true},
		"the master's id":   {spoil: func(d damaged) { d.spoil("master-id", garbage) }, least: 10},
		"the id is lost":    {spoil: func(d damaged) { d.remove("master-id") }, least: 10},
		"everything": {spoil: func(d damaged) {
			for _, name := range []string{"state.db", "counter.dat", "master-id", "master.lock", "admin.path"} {
				d.spoil(name, garbage)
			}
			d.remove("backups")
		}, short: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := killedWithAStaleBackup(t)
			test.spoil(d)
			m := d.Start("--on-damage", "recover")
			after := d.AwaitRunning(4)
			if diff := cmp.Diff(d.want, d.instances(after)); diff != "" {
				t.Errorf("the workers are not what they were (-before +after):\n%s", diff)
			}
			if after.MasterID != d.before.MasterID {
				t.Errorf("the master's id was %s and is %s", d.before.MasterID, after.MasterID)
			}
			d.WantNoTwin(after)
			d.decoy.WantUntouched(t)
			since, said := shortSince(d.Host)
			if after.ProcessedCount < test.least || after.ProcessedCount > d.asked || said != test.short ||
				since.After(time.Now()) {
				t.Errorf("processed_count = %d, short since %s (said: %t); want %d to %d, and that it is said: %t",
					after.ProcessedCount, since, said, test.least, d.asked, test.short)
			}
			if said != strings.Contains(m.Log(), "processed count may be short") {
				t.Errorf("the log tells another story than the dump, which has it short: %t\n%s", said, m.Log())
			}
			d.Ask("after the damage")
			m.Stop()
			d.WantNothingLeft()
		})
	}
}

// Every file is damaged, and the recovering master is killed at each step.
func TestMasterKilledAnywhereInARecoveryIsFollowedByOneThatFinishesIt(t *testing.T) {
	t.Parallel()
	d := killedWithAStaleBackup(t)
	points := slices.Concat([]crashpoint.Point{crashpoint.Quarantine, crashpoint.QuarantineSync},
		crashpoint.MasterID.Steps(), crashpoint.Restore.Steps(), crashpoint.Counter.Steps(),
		[]crashpoint.Point{crashpoint.Commit})
	list := append(harness.Moments(1, points...), harness.Moments(3, crashpoint.Quarantine)[2:]...)
	for _, moment := range list {
		for _, name := range []string{"state.db", "counter.dat", "master-id"} {
			d.spoil(name, garbage)
		}
		m := d.Launch(d.Program, []string{"HSU_CRASH_POINT=" + moment}, "--on-damage", "recover")
		m.Wait()
		if status := m.Cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() ||
			status.Signal() != syscall.SIGKILL {
			t.Fatalf("%s: the master ended with %v\n%s", moment, m.Cmd.ProcessState, m.Log())
		}
		m = d.Start("--on-damage", "recover")
		after := d.AwaitRunning(4)
		if diff := cmp.Diff(d.want, d.instances(after)); diff != "" || after.MasterID != d.before.MasterID {
			t.Errorf("%s: the workers are not what they were (-before +after):\n%s", moment, diff)
		}
		if _, said := shortSince(d.Host); !said {
			t.Errorf("%s: processed_count = %d, and nothing says that it may be short", moment, after.ProcessedCount)
		}
		d.WantNoTwin(after)
		m.Kill()
	}
	d.decoy.WantUntouched(t)
	t.Logf("%d moments", len(list))
	m := d.Start()
	d.AwaitRunning(4)
	m.Stop()
	d.WantNothingLeft()
}

// The living process is newer than any record of the worker in an old backup.
func TestWorkerThatIsNewerThanItsRecordIsKeptWhateverThatSays(t *testing.T) {
	for name, edit := range map[string]func(*storepb.Worker, *storepb.Meta){
		"starting, without a PID": func(w *storepb.Worker, _ *storepb.Meta) {
			w.Status, w.Instance.Pid, w.Instance.Proof = storepb.Status_STATUS_STARTING, 0, 0
		},
		"stopping": func(w *storepb.Worker, _ *storepb.Meta) { w.Status = storepb.Status_STATUS_STOPPING },
		"in backoff for long": func(w *storepb.Worker, _ *storepb.Meta) {
			w.Status, w.Instance = storepb.Status_STATUS_BACKOFF, nil
			w.Budget = &storepb.RestartBudget{RetryAtNs: 1 << 62, BootId: w.GetBudget().GetBootId()}
		},
		"failed": func(w *storepb.Worker, _ *storepb.Meta) {
			w.Status, w.Instance = storepb.Status_STATUS_FAILED, nil
		},
		"stopped": func(w *storepb.Worker, _ *storepb.Meta) {
			w.Status, w.Instance = storepb.Status_STATUS_STOPPED, nil
		},
		"of another boot":      func(w *storepb.Worker, _ *storepb.Meta) { w.Instance.BootId = "another" },
		"of another folder":    func(_ *storepb.Worker, m *storepb.Meta) { m.StateDirInode++ },
		"of another's process": func(w *storepb.Worker, _ *storepb.Meta) { w.Instance.Token = strings.Repeat("0", 32) },
		"without anything else": func(w *storepb.Worker, _ *storepb.Meta) {
			*w = storepb.Worker{Id: w.GetId(), Desired: w.GetDesired(), Status: w.GetStatus()}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := killedWithAStaleBackup(t)
			d.editBackup(edit)
			d.spoil("state.db", garbage)
			m := d.Start("--on-damage", "recover")
			after := d.AwaitRunning(4)
			if diff := cmp.Diff(d.want, d.instances(after)); diff != "" || after.ProcessedCount != d.asked {
				t.Errorf("processed_count = %d; the workers are not what they were (-before +after):\n%s",
					after.ProcessedCount, diff)
			}
			d.WantNoTwin(after)
			d.decoy.WantUntouched(t)
			if r := d.CLI("state", "check"); r.Code != 0 {
				t.Errorf("state check: %d\n%s", r.Code, r.Stdout)
			}
			m.Stop()
			d.WantNothingLeft()
		})
	}
}

func (d damaged) remove(name string) {
	d.T.Helper()
	if err := os.RemoveAll(filepath.Join(d.State, name)); err != nil {
		d.T.Fatal(err)
	}
}

func (d damaged) mkdir(name string) {
	d.T.Helper()
	if err := os.MkdirAll(filepath.Join(d.State, name), 0o700); err != nil {
		d.T.Fatal(err)
	}
}

// shortSince returns since when the dump reports a short count.
func shortSince(h *harness.Host) (since time.Time, said bool) {
	h.T.Helper()
	var d struct {
		Since *time.Time `json:"count_may_be_short_since"`
	}
	if err := json.Unmarshal([]byte(h.CLI("state", "dump", "--json").Stdout), &d); err != nil {
		h.T.Fatal(err)
	}
	if d.Since == nil {
		return time.Time{}, false
	}
	text := h.CLI("state", "dump").Stdout
	if !strings.Contains(text, "may be short since") {
		h.T.Errorf("the text does not say that the count may be short:\n%s", text)
	}
	return *d.Since, true
}

func TestMasterThatRefusesADamagedStateTouchesNothing(t *testing.T) {
	t.Parallel()
	d := killedWithAStaleBackup(t)
	path := filepath.Join(d.State, "state.db")
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d.spoil("state.db", garbage)
	m := d.Launch(d.Program, nil)
	m.WantExit(5)
	for _, part := range []string{"is damaged", "hint: ", "--on-damage recover"} {
		if !strings.Contains(m.Log(), part) {
			t.Errorf("%q is not in what it says:\n%s", part, m.Log())
		}
	}
	if now, err := os.ReadFile(path); err != nil || string(now) != "garbage\n" {
		t.Errorf("the file was changed: %q, %v", now, err)
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
	if n := len(d.Leaders()); n != 4 {
		t.Errorf("%d workers live on, want 4", n)
	}
	// After the file is restored, all is as before.
	if err := os.WriteFile(path, sound, 0o600); err != nil {
		t.Fatal(err)
	}
	m = d.Start()
	after := d.AwaitRunning(4)
	if diff := cmp.Diff(d.before.Instances(), after.Instances()); diff != "" || after.ProcessedCount != d.asked {
		t.Errorf("processed_count = %d; the workers are not what they were (-before +after):\n%s",
			after.ProcessedCount, diff)
	}
	d.decoy.WantUntouched(t)
	m.Stop()
	d.WantNothingLeft()
}

// Masters crash during each recovery, and the state is damaged again each time.
func TestCrashLoopWithDamageLosesNoWorkerAndFillsNoDisk(t *testing.T) {
	t.Parallel()
	d := killedWithAStaleBackup(t)
	for round := range 12 {
		d.spoil("state.db", func([]byte) []byte { return fmt.Appendf(nil, "garbage %d", round) })
		m := d.Launch(d.Program, []string{"HSU_CRASH_POINT=before-serving"}, "--on-damage", "recover")
		m.Wait()
		if status := m.Cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
			t.Fatalf("the master ended with %v\n%s", m.Cmd.ProcessState, m.Log())
		}
	}
	kept, _ := filepath.Glob(filepath.Join(d.State, "state.db.damaged-*"))
	slices.Sort(kept)
	if len(kept) != 8 {
		t.Errorf("%d damaged files were kept, want 8", len(kept))
	}
	first, err := os.ReadFile(kept[0])
	if err != nil || string(first) != "garbage 0" {
		t.Errorf("the first is %q, %v", first, err)
	}
	m := d.Start("--on-damage", "recover")
	after := d.AwaitRunning(4)
	if diff := cmp.Diff(d.want, d.instances(after)); diff != "" || after.ProcessedCount != d.asked {
		t.Errorf("processed_count = %d; the workers are not what they were (-before +after):\n%s",
			after.ProcessedCount, diff)
	}
	d.WantNoTwin(after)
	d.decoy.WantUntouched(t)
	m.Stop()
	d.WantNothingLeft()
}
