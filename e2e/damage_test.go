//go:build e2e && linux

package e2e

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

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store/storepb"
)

// The master is killed, its state is damaged, and the next master starts.

// damaged is a host whose master was killed and whose newest backup is older than two of its four workers.
type damaged struct {
	*host
	before dump
	want   map[string]instance // the part of each worker that must survive
	decoy  *decoy              // has the PID that the backup names for worker-0
	asked  int64
}

// instances returns the facts that the process keeps; others are lost with the database.
func (d damaged) instances(of dump) map[string]instance {
	all := of.instances(d.t)
	for id, i := range all {
		i.Incarnation, i.Restarts = 0, 0
		all[id] = i
	}
	return all
}

func killedWithAStaleBackup(t *testing.T) damaged {
	t.Helper()
	h := newHost(t, workers(4)...)
	m := h.start()
	before := h.awaitRunning(4)
	d := damaged{host: h, decoy: h.decoy(0)}
	waitFor(t, "the first backup is made", func() error {
		if len(h.backups()) == 0 {
			return errors.New("there is none")
		}
		return nil
	})
	for _, id := range []string{"worker-0", "worker-1"} {
		h.killWorker(before.worker(t, id).PID)
	}
	d.before = h.awaitWorkers(4, "run, two of them anew", func(now dump, w worker) bool {
		return running(now, w) && (w.Restarts == 1) == (w.ID == "worker-0" || w.ID == "worker-1")
	})
	for range 10 {
		h.ask("counted")
		d.asked++
	}
	d.want = d.instances(d.before)
	m.kill()
	d.staleBackup()
	return d
}

func (h *host) backups() []string {
	paths, _ := filepath.Glob(filepath.Join(h.state, "backups", "*.db"))
	return paths
}

// staleBackup makes the backup's PID for worker-0 that of a foreign process.
func (d damaged) staleBackup() {
	d.t.Helper()
	d.editBackup(func(w *storepb.Worker, _ *storepb.Meta) {
		w.Status = storepb.Status_STATUS_RUNNING
		w.Instance.Pid, w.Instance.PidfdInode, w.Instance.Proof =
			int32(d.decoy.pid()), 1, storepb.Proof_PROOF_PIDFD_INODE
	})
}

// editBackup changes the newest backup's record of worker-0, and its metadata.
func (d damaged) editBackup(edit func(*storepb.Worker, *storepb.Meta)) {
	d.t.Helper()
	backups := d.backups()
	db, err := bolt.Open(backups[len(backups)-1], 0o600, nil)
	if err != nil {
		d.t.Fatal(err)
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
		d.t.Fatal(err)
	}
}

// spoil changes a file of the state.
func (d damaged) spoil(name string, change func(content []byte) []byte) {
	d.t.Helper()
	path := filepath.Join(d.state, name)
	content, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, change(content), 0o600)
	}
	if err != nil {
		d.t.Fatal(err)
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
			for _, path := range d.backups() {
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
			m := d.start("--on-damage", "recover")
			after := d.awaitRunning(4)
			if diff := cmp.Diff(d.want, d.instances(after)); diff != "" {
				t.Errorf("the workers are not what they were (-before +after):\n%s", diff)
			}
			if after.MasterID != d.before.MasterID {
				t.Errorf("the master's id was %s and is %s", d.before.MasterID, after.MasterID)
			}
			d.wantNoTwin(after)
			d.decoy.wantUntouched()
			since, said := d.shortSince()
			if after.ProcessedCount < test.least || after.ProcessedCount > d.asked || said != test.short ||
				since.After(time.Now()) {
				t.Errorf("processed_count = %d, short since %s (said: %t); want %d to %d, and that it is said: %t",
					after.ProcessedCount, since, said, test.least, d.asked, test.short)
			}
			if said != strings.Contains(m.log(), "processed count may be short") {
				t.Errorf("the log tells another story than the dump, which has it short: %t\n%s", said, m.log())
			}
			d.ask("after the damage")
			m.stop()
			d.wantNothingLeft()
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
	list := append(moments(1, points...), moments(3, crashpoint.Quarantine)[2:]...)
	for _, moment := range list {
		for _, name := range []string{"state.db", "counter.dat", "master-id"} {
			d.spoil(name, garbage)
		}
		m := d.launch(d.program, []string{"HSU_CRASH_POINT=" + moment}, "--on-damage", "recover")
		m.wait()
		if status := m.cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() ||
			status.Signal() != syscall.SIGKILL {
			t.Fatalf("%s: the master ended with %v\n%s", moment, m.cmd.ProcessState, m.log())
		}
		m = d.start("--on-damage", "recover")
		after := d.awaitRunning(4)
		if diff := cmp.Diff(d.want, d.instances(after)); diff != "" || after.MasterID != d.before.MasterID {
			t.Errorf("%s: the workers are not what they were (-before +after):\n%s", moment, diff)
		}
		if _, said := d.shortSince(); !said {
			t.Errorf("%s: processed_count = %d, and nothing says that it may be short", moment, after.ProcessedCount)
		}
		d.wantNoTwin(after)
		m.kill()
	}
	d.decoy.wantUntouched()
	t.Logf("%d moments", len(list))
	m := d.start()
	d.awaitRunning(4)
	m.stop()
	d.wantNothingLeft()
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
			m := d.start("--on-damage", "recover")
			after := d.awaitRunning(4)
			if diff := cmp.Diff(d.want, d.instances(after)); diff != "" || after.ProcessedCount != d.asked {
				t.Errorf("processed_count = %d; the workers are not what they were (-before +after):\n%s",
					after.ProcessedCount, diff)
			}
			d.wantNoTwin(after)
			d.decoy.wantUntouched()
			if r := d.cli("state", "check"); r.code != 0 {
				t.Errorf("state check: %d\n%s", r.code, r.stdout)
			}
			m.stop()
			d.wantNothingLeft()
		})
	}
}

func (d damaged) remove(name string) {
	d.t.Helper()
	if err := os.RemoveAll(filepath.Join(d.state, name)); err != nil {
		d.t.Fatal(err)
	}
}

func (d damaged) mkdir(name string) {
	d.t.Helper()
	if err := os.MkdirAll(filepath.Join(d.state, name), 0o700); err != nil {
		d.t.Fatal(err)
	}
}

// shortSince returns since when the dump reports a short count.
func (h *host) shortSince() (since time.Time, said bool) {
	h.t.Helper()
	var d struct {
		Since *time.Time `json:"count_may_be_short_since"`
	}
	if err := json.Unmarshal([]byte(h.cli("state", "dump", "--json").stdout), &d); err != nil {
		h.t.Fatal(err)
	}
	if d.Since == nil {
		return time.Time{}, false
	}
	text := h.cli("state", "dump").stdout
	if !strings.Contains(text, "may be short since") {
		h.t.Errorf("the text does not say that the count may be short:\n%s", text)
	}
	return *d.Since, true
}

func TestMasterThatRefusesADamagedStateTouchesNothing(t *testing.T) {
	t.Parallel()
	d := killedWithAStaleBackup(t)
	path := filepath.Join(d.state, "state.db")
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d.spoil("state.db", garbage)
	m := d.launch(d.program, nil)
	m.wantExit(5)
	for _, part := range []string{"is damaged", "hint: ", "--on-damage recover"} {
		if !strings.Contains(m.log(), part) {
			t.Errorf("%q is not in what it says:\n%s", part, m.log())
		}
	}
	if now, err := os.ReadFile(path); err != nil || string(now) != "garbage\n" {
		t.Errorf("the file was changed: %q, %v", now, err)
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
	if n := len(d.leaders()); n != 4 {
		t.Errorf("%d workers live on, want 4", n)
	}
	// After the file is restored, all is as before.
	if err := os.WriteFile(path, sound, 0o600); err != nil {
		t.Fatal(err)
	}
	m = d.start()
	after := d.awaitRunning(4)
	if diff := cmp.Diff(d.before.instances(t), after.instances(t)); diff != "" || after.ProcessedCount != d.asked {
		t.Errorf("processed_count = %d; the workers are not what they were (-before +after):\n%s",
			after.ProcessedCount, diff)
	}
	d.decoy.wantUntouched()
	m.stop()
	d.wantNothingLeft()
}

// Masters crash during each recovery, and the state is damaged again each time.
func TestCrashLoopWithDamageLosesNoWorkerAndFillsNoDisk(t *testing.T) {
	t.Parallel()
	d := killedWithAStaleBackup(t)
	for round := range 12 {
		d.spoil("state.db", func([]byte) []byte { return fmt.Appendf(nil, "garbage %d", round) })
		m := d.launch(d.program, []string{"HSU_CRASH_POINT=before-serving"}, "--on-damage", "recover")
		m.wait()
		if status := m.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
			t.Fatalf("the master ended with %v\n%s", m.cmd.ProcessState, m.log())
		}
	}
	kept, _ := filepath.Glob(filepath.Join(d.state, "state.db.damaged-*"))
	slices.Sort(kept)
	if len(kept) != 8 {
		t.Errorf("%d damaged files were kept, want 8", len(kept))
	}
	first, err := os.ReadFile(kept[0])
	if err != nil || string(first) != "garbage 0" {
		t.Errorf("the first is %q, %v", first, err)
	}
	m := d.start("--on-damage", "recover")
	after := d.awaitRunning(4)
	if diff := cmp.Diff(d.want, d.instances(after)); diff != "" || after.ProcessedCount != d.asked {
		t.Errorf("processed_count = %d; the workers are not what they were (-before +after):\n%s",
			after.ProcessedCount, diff)
	}
	d.wantNoTwin(after)
	d.decoy.wantUntouched()
	m.stop()
	d.wantNothingLeft()
}
