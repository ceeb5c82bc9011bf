package supervisor

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/recovery"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// recoveries collects the decisions that masters log, as a list for each worker.
type recoveries struct {
	mu   sync.Mutex
	told map[string][]map[string]string
}

func (*recoveries) Enabled(context.Context, slog.Level) bool { return true }
func (*recoveries) WithGroup(string) slog.Handler            { panic("no groups") }
func (r *recoveries) WithAttrs(attrs []slog.Attr) slog.Handler {
	return recoveriesOf{r, attrs}
}
func (r *recoveries) Handle(context.Context, slog.Record) error { return nil } // not about a worker

type recoveriesOf struct {
	*recoveries
	attrs []slog.Attr
}

func (r recoveriesOf) Handle(_ context.Context, record slog.Record) error {
	if record.Message != "worker recovery decided" {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	line := map[string]string{}
	record.Attrs(func(a slog.Attr) bool {
		line[a.Key] = a.Value.String()
		return true
	})
	if r.told == nil {
		r.told = map[string][]map[string]string{}
	}
	id := r.attrs[0].Value.String()
	r.told[id] = append(r.told[id], line)
	return nil
}

func (r *recoveries) first() map[string]map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := map[string]map[string]string{}
	for id, lines := range r.told {
		first[id] = lines[0]
	}
	return first
}

// asTold returns the decision as a master logs it.
func asTold(d recovery.Decision) map[string]string {
	line := map[string]string{"action": string(d.Action), "reason": d.Reason}
	for _, a := range d.Evidence.Attrs() {
		line[a.Key] = a.Value.String()
	}
	return line
}

// plan returns the decisions of "state plan" in the fake world.
func (o *fakeOS) plan(dir string, count int, change ...func(*unit.Spec)) []recovery.Decision {
	o.t.Helper()
	snap, err := store.ReadNextStart(dir, store.Options{})
	if err != nil {
		o.t.Fatal(err)
	}
	here, err := store.DirID(dir)
	if err != nil {
		o.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		o.t.Fatal(err)
	}
	bootID := o.bootID
	if bootID == "" {
		if bootID, err = process.BootID(); err != nil {
			o.t.Fatal(err)
		}
	}
	rc := &recovery.Context{
		Inspector: o, Scan: o.scan, Kept: func(string) (identity.Exit, bool) { return identity.Exit{}, false },
		MasterID: snap.Meta.MasterID, StateDir: here.String(), BootID: bootID, UID: os.Geteuid(),
		Moved: snap.Meta.StateDir != here, Now: o.bootTime,
	}
	wanted := unit.Spec{Name: "worker", Path: self, Replicas: count}
	for _, c := range change {
		c(&wanted)
	}
	decisions, err := rc.Plan(o.t.Context(), snap.Workers, []unit.Spec{*wanted.WithDefaults()}, false)
	if err != nil {
		o.t.Fatal(err)
	}
	return decisions
}

// The plan equals the decisions and acts of the next start in every scenario, and making it changes nothing.
func TestPlanIsWhatTheNextStartDoes(t *testing.T) {
	for name, sc := range scenarios {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { sc.play(t) })
		})
	}
}

func (sc scenario) play(t *testing.T) {
	world, dir := newFakeOS(t), t.TempDir()
	m := startMaster(t, world, dir, 2)
	settle(time.Second)
	world.masterID, world.stateDir = m.store.MasterID(), m.store.StateDirID().String()
	first := map[string]*fakeProcess{}
	for _, id := range []string{"worker-0", "worker-1"} {
		first[id] = world.processes[m.worker(id).Instance.PID]
	}
	m.crash()
	if sc.edit != nil {
		rewrite(t, dir, sc.edit)
	}
	if sc.meanwhile != nil {
		sc.meanwhile(world, first)
	}
	if sc.copied {
		twin := t.TempDir()
		if err := os.CopyFS(twin, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		dir = twin
	}

	before, files := world.did(), contents(t, dir)
	planned := world.plan(dir, sc.count)
	if diff := cmp.Diff(before, world.did()); diff != "" {
		t.Errorf("the plan did something:\n%s", diff)
	}
	if diff := cmp.Diff(files, contents(t, dir)); diff != "" {
		t.Errorf("the plan changed files:\n%s", diff)
	}
	want, got := map[string]map[string]string{}, decisions{}
	for _, d := range planned {
		id := d.ID
		if d.Action == recovery.ActionSweepStray {
			id = `"` + id + `"`
		}
		want[id], got[id] = asTold(d), d.Action
	}
	if diff := cmp.Diff(sc.want, got); diff != "" {
		t.Errorf("planned (-want +got):\n%s", diff)
	}

	told := &recoveries{}
	world.log = told
	m = startMaster(t, world, dir, sc.count)
	<-m.Recovered()
	if diff := cmp.Diff(want, told.first()); diff != "" {
		t.Errorf("what was decided is not what was planned (-planned +decided):\n%s", diff)
	}
	settle(time.Second)
	did := world.did()[len(before):]
	slices.Sort(did)
	acts := slices.Sorted(slices.Values(sc.acts))
	if !slices.Equal(acts, did) {
		t.Errorf("done was %q, want %q", did, acts)
	}
	for id, lines := range told.told {
		for i := 1; i < len(lines); i++ {
			if maps.Equal(lines[i-1], lines[i]) {
				t.Errorf("of %s the same was told twice: %v", id, lines[i])
			}
		}
	}
	world.mu.Lock()
	world.attachErr, world.scanErr, world.leaseHeld = nil, nil, false
	world.mu.Unlock()
	settle(2 * worker.HoldInterval)
	m.stop(nil)
}

// rewrite changes the records before the next master reads them.
func rewrite(t *testing.T, dir string, edit func(*records.Worker)) {
	t.Helper()
	db, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	snap, err := db.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range snap.Workers {
		id := w.ID
		edit(&w)
		mutation := records.PutWorker(w)
		if w.ID == "" {
			mutation = records.DeleteWorker(id)
		}
		if err := db.Apply(t.Context(), mutation); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// contents returns the content of all files below a directory.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		files[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// A worker that was started from another version is kept, and the plan reports that it is outdated.
func TestPlanTellsWhatIsOutdated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 2, func(u *unit.Spec) { u.Args = []string{"--old"} })
		settle(time.Second)
		m.crash()
		world.of("worker-1").die(identity.Exit{Signal: 9})
		planned := world.plan(dir, 2)
		if d := planned[0]; d.Action != recovery.ActionAdopt || !d.Evidence.Outdated {
			t.Errorf("%+v, want it adopted and said to be outdated", d)
		}
		if d := planned[1]; d.Action != recovery.ActionRespawn || d.Evidence.Outdated {
			t.Errorf("%+v, want it started anew, from what there is then", d)
		}
		world.of("worker-0").die(identity.Exit{})
	})
}

// The database's own record was lost, and with it the directory that the database was made for. The state counts as
// moved, but the workers' environment names their master and directory.
func TestWorkersOfThisDirectoryAreKnownWhereTheRecordOfItIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 2)
		settle(time.Second)
		world.masterID, world.stateDir = m.store.MasterID(), m.store.StateDirID().String()
		m.crash()
		b, err := bolt.Open(filepath.Join(dir, "state.db"), 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = b.Update(func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Delete([]byte("record")) })
		if err := errors.Join(err, b.Close()); err != nil {
			t.Fatal(err)
		}
		planned := world.plan(dir, 2)
		m = startMaster(t, world, dir, 2)
		settle(time.Second)
		for i, id := range []string{"worker-0", "worker-1"} {
			if w := m.worker(id); world.starts(id) != 1 || !w.Adopted || planned[i].Action != recovery.ActionAdopt {
				t.Errorf("%s: started %d times, adopted %v, planned %+v", id, world.starts(id), w.Adopted, planned[i])
			}
		}
		m.stop(nil)
	})
}

// A held worker is checked every second, but an unchanged decision is logged only once.
func TestHeldWorkerIsToldAgainWhenTheDecisionChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir, told := newFakeOS(t), t.TempDir(), &recoveries{}
		m := startMaster(t, world, dir, 1)
		settle(time.Second)
		m.crash()
		world.attachErr, world.log = process.ErrUnverifiable, told
		m = startMaster(t, world, dir, 1)
		settle(time.Minute)
		world.mu.Lock()
		world.attachErr = nil
		world.mu.Unlock()
		settle(2 * worker.HoldInterval)
		var actions []string
		for _, line := range told.told["worker-0"] {
			actions = append(actions, line["action"])
		}
		if want := []string{"hold", "adopt"}; !slices.Equal(actions, want) {
			t.Errorf("told %q, want %q", actions, want)
		}
		m.stop(nil)
	})
}

// Otherwise, a crash right after the first start would make the next master take its own workers for the
// original's.
func TestMovedDirectoryIsAcceptedBeforeTheFirstStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir, twin := newFakeOS(t), t.TempDir(), t.TempDir()
		m := startMaster(t, world, dir, 1)
		settle(time.Second)
		m.crash()
		if err := os.CopyFS(twin, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		world.of("worker-0").elsewhere = true
		world.behave = func(*fakeProcess) {
			snap, err := world.store.Snapshot()
			here, idErr := store.DirID(twin)
			if err != nil || idErr != nil || snap.Meta.StateDir != here {
				t.Errorf("started while the directory is recorded as %v, which is %v (%v, %v)",
					snap.Meta.StateDir, here, err, idErr)
			}
		}
		m = startMaster(t, world, twin, 1)
		settle(time.Second)
		if n := world.starts("worker-0"); n != 2 {
			t.Errorf("started %d times, want 2", n)
		}
		m.stop(nil)
	})
}
