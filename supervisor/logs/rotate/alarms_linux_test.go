package rotate

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/logs/offsets"
)

// quieted returns a rotator that has looked so often at a log that does not change that it awaits the next change.
func quieted(t *testing.T) (r *Rotator, path string, watches map[string]*watch) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "worker-0.log")
	if err := os.WriteFile(path, line("0", 1), 0o600); err != nil {
		t.Fatal(err)
	}
	r = New(func(_ context.Context, e Event) { t.Logf("%+v", e) }, &offsets.Tables{})
	r.alarms = newAlarms()
	t.Cleanup(r.alarms.close)
	r.Put("worker-0", Log{Path: path, Policy: logs.Policy{MaxSize: 64 << 10, Keep: 1}, AppendsOnly: always})
	watches = map[string]*watch{}
	r.look(t.Context(), watches)
	for looks := 1; rests(watches) < idle*2; looks++ {
		if looks > 2*quietLooks {
			t.Fatalf("the log is still looked at: %+v", watches["worker-0"])
		}
		watches["worker-0"].due = time.Time{}
		r.look(t.Context(), watches)
	}
	if w := watches["worker-0"]; w.quiet < quietLooks {
		t.Errorf("not looked at any more after %d looks", w.quiet)
	}
	return r, path, watches
}

// rests returns the time until the next look at the log.
func rests(watches map[string]*watch) time.Duration { return time.Until(watches["worker-0"].due) }

func awaitAlarm(t *testing.T, r *Rotator) []string {
	t.Helper()
	select {
	case <-r.alarms.rung():
		return r.alarms.take()
	case <-time.After(patience):
		t.Fatal("the change was not reported")
		return nil
	}
}

// A log that does not change is not looked at, and its next change is noticed.
func TestQuietLogsAreNotLookedAt(t *testing.T) {
	appendTo := func(t *testing.T, path string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(strings.Repeat("a line\n", 20_000)); err != nil {
			t.Fatal(err)
		}
	}
	for name, change := range map[string]func(path string) error{
		"written":   nil,
		"truncated": func(path string) error { return os.Truncate(path, 0) },
		"removed":   os.Remove,
		"moved":     func(path string) error { return os.Rename(path, path+".old") },
	} {
		t.Run(name, func(t *testing.T) {
			r, path, watches := quieted(t)
			writer, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0) // as a worker has it
			if err != nil {
				t.Fatal(err)
			}
			defer writer.Close()
			if change == nil {
				appendTo(t, path)
			} else if err := change(path); err != nil {
				t.Fatal(err)
			}
			if changed := awaitAlarm(t, r); !slices.Equal(changed, []string{"worker-0"}) {
				t.Fatalf("changed: %v", changed)
			}
			wake(watches, []string{"worker-0", "gone"}, time.Now())
			if rests(watches) > 0 {
				t.Errorf("the next look is in %v", rests(watches))
			}
			if r.look(t.Context(), watches); rests(watches) > idle*2 {
				t.Errorf("after the change, the next look is in %v", rests(watches))
			}
			if names := rotated(t, path); change == nil && len(names) != 1 {
				t.Errorf("rotated files %v, want one", names)
			}
		})
	}
}

// A log whose policy has changed is looked at, although the log has not changed.
func TestQuietLogWithAnotherPolicy(t *testing.T) {
	r, path, watches := quieted(t)
	r.Put("worker-0", Log{Path: path, Policy: logs.Policy{MaxSize: 128 << 10, Keep: 1}, AppendsOnly: always})
	if r.look(t.Context(), watches); rests(watches) > idle*2 {
		t.Errorf("the next look is in %v", rests(watches))
	}
}

// The time for which a log was quiet does not make its writer a slow one.
func TestQuietLogWithAFastWriter(t *testing.T) {
	_, path, watches := quieted(t)
	w, now := watches["worker-0"], time.Now()
	w.at = now.Add(-watched)
	const written = 1 << 20
	if err := os.Truncate(path, w.info.Size()+written); err != nil {
		t.Fatal(err)
	}
	wake(watches, []string{"worker-0"}, now)
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if rate, _ := w.see(info, now); rate < written/quickest.Seconds() {
		t.Errorf("%.0f bytes a second, and %d were written within %v", rate, written, quickest)
	}
}

// A master that ends does not wait until more changes would be reported.
func TestAlarmsAreClosedAtOnce(t *testing.T) {
	a := newAlarms()
	if a == nil {
		t.Skip("no inotify")
	}
	a.pause = 10 * patience
	path := filepath.Join(t.TempDir(), "worker-0.log")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !a.watch("worker-0", path) {
		t.Skip("no watch")
	}
	if err := os.Truncate(path, 1); err != nil {
		t.Fatal(err)
	}
	<-a.rung()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		a.close()
	}()
	select {
	case <-closed:
	case <-time.After(patience):
		t.Error("not closed")
	}
}

// If changes were dropped, each log may have changed. Without room for another watch, a log is looked at.
func TestAlarmsThatFail(t *testing.T) {
	r, path, _ := quieted(t)
	overflow := unix.InotifyEvent{Wd: -1, Mask: unix.IN_Q_OVERFLOW}
	if !r.alarms.note(bytesOf(&overflow)) || !slices.Equal(r.alarms.take(), []string{"worker-0"}) {
		t.Error("a log that may have changed is not looked at")
	}
	if r.alarms.watch("worker-1", path+".missing") {
		t.Error("a missing log is watched")
	}
	var none *alarms
	if none.watch("worker-0", path) || none.rung() != nil {
		t.Error("alarms that could not be made are set")
	}
	none.close()
}

func bytesOf(e *unix.InotifyEvent) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(e)), unix.SizeofInotifyEvent)
}
