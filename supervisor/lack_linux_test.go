package supervisor

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// spoil makes every write to the open state in dir fail, and leaves no space for rewriting it, until the returned
// function is called.
func spoil(t *testing.T, dir string) (mend func()) {
	t.Helper()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	spoilt := 0
	for fd := range 1 << 10 {
		path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		if err != nil || filepath.Dir(path) != dir || filepath.Base(path) == "master.lock" {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil ||
			flags&unix.O_ACCMODE == unix.O_RDONLY {
			continue
		}
		if err := unix.Dup3(int(null.Fd()), fd, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		spoilt++
	}
	if spoilt != 2 {
		t.Fatalf("%d files are open in %s, want the registry and the counter", spoilt, dir)
	}
	obstacle := filepath.Join(dir, "state.db.tmp")
	if err := os.MkdirAll(filepath.Join(obstacle, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.RemoveAll(obstacle); err != nil {
			t.Fatal(err)
		}
	}
}

// A worker whose exit cannot be recorded delays nothing else, not even a recovery.
func TestRecoveryDoesNotWaitForTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 2)
		settle(time.Second)
		before := m.worker("worker-0")
		m.crash()
		world.of("worker-1").die(identity.Exit{Signal: 9, Source: identity.ExitUnknown})

		var mend func()
		m = startMaster(t, world, dir, 2, func(*unit.Spec) { mend = spoil(t, dir) })
		settle(time.Minute)
		select {
		case <-m.Recovered():
		default:
			t.Error("the recovery is not over after a minute")
		}
		if w := m.worker("worker-0"); !w.Ready || w.Instance.PID != before.Instance.PID {
			t.Errorf("the survivor = %+v, want it adopted and ready", w)
		}
		if w := m.worker("worker-1"); w.Ready || w.Status == records.StatusRunning || w.Instance != nil {
			t.Errorf("the dead one = %+v, want it shown as what it is", w)
		}
		if n := world.starts("worker-1"); n != 1 {
			t.Errorf("the dead one was started %d times, want no start that is not recorded first", n)
		}
		mend()
		settle(time.Minute)
		if w := m.worker("worker-1"); !w.Ready || w.Restarts != 1 {
			t.Errorf("the dead one = %+v when it can be recorded, want it restarted", w)
		}
		m.stop(nil)
	})
}

// The units are recorded as soon as that is possible, and nothing is scaled before.
func TestUnitsAreRecordedWhenTheDiskCanBeWrittenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 1)
		settle(time.Second)
		m.crash()
		var mend func()
		m = startMaster(t, world, dir, 2, func(*unit.Spec) { mend = spoil(t, dir) })
		settle(time.Minute)
		if w := m.worker("worker-0"); !w.Ready {
			t.Errorf("the survivor = %+v, want it adopted and ready", w)
		}
		if _, err := m.Scale(t.Context(), "worker", 3); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("Scale = %v, want store.ErrUnavailable", err)
		}
		if err := m.Apply(t.Context(), unitOf(t, "other", 1)); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("Apply = %v, want store.ErrUnavailable", err)
		}
		mend()
		settle(time.Minute)
		if got := m.units(); got != "worker 2" || m.ids() != "worker-0 running, worker-1 running" {
			t.Errorf("recorded are %s, workers %s; want those of the start", got, m.ids())
		}
		m.scale("worker", 3)
		m.stop(nil)
	})
}

// A restart that a crash has cut off goes on when the state can be written again, also if it cannot be at the start.
func TestRestartGoesOnWhenTheDiskCanBeWrittenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		world.behave = func(p *fakeProcess) { p.ignoresTerm = true } // the stop takes the whole grace
		m := startMaster(t, world, dir, 2)
		settle(time.Second)
		_, err := m.Restart(t.Context(), RestartRequest{Workers: []string{"worker-0", "worker-1"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		m.crash()
		var mend func()
		m = startMaster(t, world, dir, 2, func(*unit.Spec) { mend = spoil(t, dir) })
		settle(time.Minute)
		if n := world.starts("worker-1"); n != 1 {
			t.Errorf("worker-1 was started %d times, want no restart that is not recorded first", n)
		}
		mend()
		settle(time.Minute)
		for _, id := range []string{"worker-0", "worker-1"} {
			if w := m.worker(id); !w.Ready || w.Incarnation != 2 {
				t.Errorf("%s = %+v, want it restarted once", id, w)
			}
		}
		m.stop(nil)
	})
}
