package supervisor

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/recovery"
	"github.com/core-tools/hsu-master/supervisor/schedule"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// runsAt gives the unit a schedule in UTC.
func runsAt(text string) func(*unit.Spec) {
	return func(u *unit.Spec) {
		u.Kind, u.Port, u.Schedule.Cron, u.Schedule.TimeZone = unit.Managed, unit.NoPort, text, "UTC"
	}
}

func catchesUp(u *unit.Spec) { u.Schedule.Missed = unit.MissedRunOnce }

// calendar returns a world for tests of days and months.
func calendar(t *testing.T) *fakeOS {
	world := newFakeOS(t)
	world.unrotated = true
	return world
}

// exits has each process end by itself after a time.
func exits(world *fakeOS, after time.Duration, code int) {
	world.set(func() { world.behave = func(p *fakeProcess) { p.exitsAfter, p.exitCode = after, code } })
}

// expect compares the worker with its status, its reason and the number of its starts.
func (m *master) expect(world *fakeOS, status records.Status, reason string, starts int) {
	m.t.Helper()
	w, n := m.worker("worker-0"), world.starts("worker-0")
	if w.Status != status || w.Reason != reason || n != starts {
		m.t.Errorf("worker is %s %q after %d starts, want %s %q after %d",
			w.Status, w.Reason, n, status, reason, starts)
	}
}

// history returns the details of the events of a type, oldest first.
func (m *master) history(kind string) []string {
	m.t.Helper()
	snap, err := m.store.Snapshot()
	if err != nil {
		m.t.Fatal(err)
	}
	var list []string
	for _, e := range snap.Events {
		if e.Type == kind {
			list = append(list, e.Detail)
		}
	}
	return list
}

// A bubble begins at midnight UTC, 1 January 2000.
func TestScheduleWorkerRunsWhenItIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := calendar(t)
		exits(world, 10*time.Minute, 0)
		m := startMaster(t, world, t.TempDir(), 1, runsAt("0 3 * * *"))
		settle(3*time.Hour - 1)
		m.expect(world, records.StatusScheduled, "", 0)
		settle(2 * time.Second)
		m.expect(world, records.StatusRunning, "", 1)
		settle(time.Hour)
		m.expect(world, records.StatusScheduled, "", 1)
		w := m.worker("worker-0")
		next := time.Date(2000, 1, 2, 3, 0, 0, 0, time.UTC)
		if w.LastExit == nil || w.Restarts != 0 || !w.Due.Next.Equal(next) ||
			!w.Due.Last.Equal(next.AddDate(0, 0, -1)) {
			t.Errorf("worker = %+v, due %+v, want an exit, no restart and the next run at %s", w, w.Due, next)
		}
		settle(30 * 24 * time.Hour)
		m.expect(world, records.StatusScheduled, "", 31)
		m.stop(nil)
	})
}

func TestScheduleFailedRunIsNotRepeatedBeforeTheNextDueTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := calendar(t), t.TempDir()
		exits(world, 10*time.Minute, 3)
		m := startMaster(t, world, dir, 1, runsAt("0 3 * * *"))
		settle(12 * time.Hour)
		m.expect(world, records.StatusScheduled, "exited with code 3", 1)
		for _, end := range []error{nil, ErrDetach} {
			m.stop(end)
			m = startMaster(t, world, dir, 1, runsAt("0 3 * * *"))
			settle(time.Hour)
			m.expect(world, records.StatusScheduled, "exited with code 3", 1)
		}
		exits(world, time.Minute, 0)
		settle(24 * time.Hour)
		m.expect(world, records.StatusScheduled, "", 2)
		m.stop(nil)
	})
}

func TestScheduleDueTimeDuringARunIsSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := calendar(t)
		exits(world, 150*time.Minute, 0)
		m := startMaster(t, world, t.TempDir(), 1, runsAt("0 * * * *"), catchesUp)
		settle(3*time.Hour + 20*time.Minute)
		m.expect(world, records.StatusRunning, "", 1)
		settle(time.Hour)
		m.expect(world, records.StatusRunning, "", 2)
		got := strings.Join(m.history("run-skipped"), "\n")
		want := "due at 2000-01-01T02:00:00Z: the run before has not ended\n" +
			"due at 2000-01-01T03:00:00Z: the run before has not ended"
		if got != want {
			t.Errorf("skipped:\n%s\nwant\n%s", got, want)
		}
		m.stop(nil)
	})
}

func TestScheduleRunUnderWayIsAdoptedAndItsExitRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := calendar(t), t.TempDir()
		exits(world, 3*time.Hour, 4)
		m := startMaster(t, world, dir, 1, runsAt("0 3 * * *"))
		settle(4 * time.Hour)
		m.crash()
		settle(time.Hour)
		m = startMaster(t, world, dir, 1, runsAt("0 3 * * *"))
		settle(time.Second)
		m.expect(world, records.StatusRunning, "", 1)
		if w := m.worker("worker-0"); !w.Adopted {
			t.Errorf("worker = %+v, want it adopted", w)
		}
		settle(2 * time.Hour)
		m.expect(world, records.StatusScheduled, "exited with code 4", 1)
		m.stop(nil)
	})
}

func TestScheduleMissedRuns(t *testing.T) {
	for missed, want := range map[unit.Missed]struct {
		starts       int
		action       recovery.Action
		events, last string
	}{
		unit.MissedSkip: {
			1, recovery.ActionKeepScheduled,
			"3 due times since 2000-01-02T03:00:00Z: no master ran", "due at 2000-01-01T03:00:00Z",
		},
		unit.MissedRunOnce: {
			2, recovery.ActionRun,
			"2 due times since 2000-01-02T03:00:00Z: no master ran",
			"due at 2000-01-04T03:00:00Z, made up for 9h0m0s later",
		},
	} {
		t.Run(string(missed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world, dir := calendar(t), t.TempDir()
				exits(world, time.Minute, 0)
				change := func(u *unit.Spec) { runsAt("0 3 * * *")(u); u.Schedule.Missed = missed }
				m := startMaster(t, world, dir, 1, change)
				settle(12 * time.Hour)
				m.crash()
				settle(3 * 24 * time.Hour)
				told := &recoveries{}
				world.log = told
				m = startMaster(t, world, dir, 1, change)
				settle(time.Hour)
				m.expect(world, records.StatusScheduled, "", want.starts)
				if got := m.history("run-missed"); len(got) != 1 || got[0] != want.events {
					t.Errorf("missed: %q, want %q", got, want.events)
				}
				if got := m.history("run-due"); got[len(got)-1] != want.last {
					t.Errorf("run: %q, want the last %q", got, want.last)
				}
				if line := told.told["worker-0"][0]; line["action"] != string(want.action) {
					t.Errorf("decided: %v, want %s", line, want.action)
				}
				m.crash()
				m = startMaster(t, world, dir, 1, change)
				settle(time.Hour)
				m.expect(world, records.StatusScheduled, "", want.starts) // a recorded due time is not run again
				m.stop(nil)
			})
		})
	}
}

// The intent of a run is recorded, and the master is killed before it learns of a process.
func TestScheduleRunThatWasCutOffIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := calendar(t), t.TempDir()
		exits(world, time.Minute, 0)
		m := startMaster(t, world, dir, 1, runsAt("0 3 * * *"), catchesUp)
		settle(12 * time.Hour)
		rec := m.worker("worker-0").Worker
		due := *rec.Due
		rec.Status, rec.Instance, rec.Due = records.StatusStarting, &records.Instance{
			Token: "0123456789abcdef0123456789abcdef", Process: identity.Process{BootID: m.env.BootID},
		}, &due
		if err := m.store.Apply(t.Context(), records.PutWorker(rec)); err != nil {
			t.Fatal(err)
		}
		m.crash()
		m = startMaster(t, world, dir, 1, runsAt("0 3 * * *"), catchesUp)
		settle(time.Hour)
		w := m.worker("worker-0")
		if w.Status != records.StatusScheduled || !strings.Contains(w.Reason, "cut off") ||
			world.starts("worker-0") != 1 {
			t.Errorf("worker is %s %q after %d starts, want it scheduled after a run that was cut off",
				w.Status, w.Reason, world.starts("worker-0"))
		}
		m.stop(nil)
	})
}

func TestScheduleStopOfTheMasterEndsARunAndDetachDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := calendar(t), t.TempDir()
		exits(world, 5*time.Hour, 0)
		m := startMaster(t, world, dir, 1, runsAt("0 3 * * *"))
		settle(4 * time.Hour)
		p := world.of("worker-0")
		m.stop(ErrDetach)
		if p.isDead() {
			t.Error("a detached master ended the run")
		}
		m = startMaster(t, world, dir, 1, runsAt("0 3 * * *"))
		settle(time.Minute)
		m.stop(nil)
		if !p.isDead() {
			t.Error("the run has outlived its master")
		}
		m = startMaster(t, world, dir, 1, runsAt("0 3 * * *"))
		settle(time.Minute)
		m.expect(world, records.StatusScheduled, "", 1)
		m.stop(nil)
	})
}

// A run that is cut off in its start.before by an orderly stop is not repeated, so the history has it.
func TestScheduleRunWhoseCommandIsCutOffByAStopIsMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := calendar(t), t.TempDir()
		world.onHook = hang(beforeID)
		options := []func(*unit.Spec){runsAt("0 3 * * *"), catchesUp, allHooks, func(u *unit.Spec) {
			u.Start.Timeout = 12 * time.Hour
		}}
		m := startMaster(t, world, dir, 1, options...)
		settle(4 * time.Hour)
		m.stop(nil)
		m = startMaster(t, world, dir, 1, options...)
		settle(time.Hour)
		m.expect(world, records.StatusScheduled, "", 0)
		want := []string{"due at 2000-01-01T03:00:00Z: the master was stopping"}
		if got := m.history("run-missed"); !slices.Equal(got, want) {
			t.Errorf("missed runs %q, want %q", got, want)
		}
		m.stop(nil)
		m = startMaster(t, world, dir, 1, options...)
		settle(time.Minute)
		if got := m.history("run-missed"); len(got) != 1 {
			t.Errorf("a stop without a run has added %q", got)
		}
		m.stop(nil)
	})
}

func TestScheduleStepsOfTheClock(t *testing.T) {
	for name, test := range map[string]struct {
		step    time.Duration // two hours after a run
		missed  unit.Missed
		soon    int // starts within two minutes
		day     int // starts within the day after
		skipped int // due times
	}{
		"back over a run":                {-4 * time.Hour, unit.MissedRunOnce, 1, 1, 0},
		"back by weeks":                  {-20 * 24 * time.Hour, unit.MissedRunOnce, 1, 1, 0},
		"a little back":                  {-time.Minute, unit.MissedSkip, 1, 2, 0},
		"forward to the next run":        {22*time.Hour - time.Minute, unit.MissedSkip, 2, 3, 0},
		"forward over a run":             {23 * time.Hour, unit.MissedSkip, 1, 2, 1},
		"forward over a run, made up":    {23 * time.Hour, unit.MissedRunOnce, 2, 3, 0},
		"forward over two runs, made up": {47 * time.Hour, unit.MissedRunOnce, 2, 3, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world := calendar(t)
				exits(world, time.Minute, 0)
				var step atomic.Int64
				world.wall = func() time.Time { return time.Now().Add(time.Duration(step.Load())) }
				m := startMaster(t, world, t.TempDir(), 1, runsAt("0 3 * * *"), func(u *unit.Spec) {
					u.Schedule.Missed = test.missed
				})
				settle(5 * time.Hour)
				if n := world.starts("worker-0"); n != 1 {
					t.Fatalf("%d starts before the step, want 1", n)
				}
				step.Store(int64(test.step))
				settle(2 * time.Minute)
				if n := world.starts("worker-0"); n != test.soon {
					t.Errorf("%d starts within two minutes after the step, want %d", n, test.soon)
				}
				settle(24 * time.Hour)
				if n := world.starts("worker-0"); n != test.day {
					t.Errorf("%d starts within a day after the step, want %d", n, test.day)
				}
				if got := m.history("run-missed"); len(got) != test.skipped {
					t.Errorf("missed: %q, want %d", got, test.skipped)
				}
				m.stop(nil)
			})
		})
	}
}

func TestScheduleApplyOfAnotherSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := calendar(t)
		exits(world, time.Hour, 0)
		m := startMaster(t, world, t.TempDir(), 1, runsAt("0 3 * * *"))
		settle(3*time.Hour + 30*time.Minute)
		p := world.of("worker-0")
		apply := func(change ...func(*unit.Spec)) {
			t.Helper()
			u := unitOf(t, "worker", 1)
			for _, c := range change {
				c(&u)
			}
			if err := m.Apply(t.Context(), u); err != nil {
				t.Fatal(err)
			}
		}
		// During a run: it goes on, even if the program has changed.
		apply(runsAt("0 5 * * *"), func(u *unit.Spec) { u.Args = []string{"--new"} })
		if p.isDead() {
			t.Error("the change has ended the run")
		}
		settle(2 * time.Hour) // 05:30
		m.expect(world, records.StatusRunning, "", 2)
		if w := m.worker("worker-0"); w.Outdated {
			t.Errorf("worker = %+v, want its run of the new version", w)
		}
		settle(time.Hour) // 06:30
		apply(runsAt("0 5 * * *"), func(u *unit.Spec) { u.Schedule.TimeZone = "America/New_York" })
		settle(4 * time.Hour) // 10:30
		m.expect(world, records.StatusRunning, "", 3)
		settle(time.Hour)
		// Without a schedule it runs always, and the other way round.
		apply(func(u *unit.Spec) { u.Kind, u.Port = unit.Managed, unit.NoPort })
		settle(time.Minute)
		m.expect(world, records.StatusRunning, "", 4)
		if w := m.worker("worker-0"); w.Due != nil {
			t.Errorf("due = %+v without a schedule", w.Due)
		}
		settle(time.Hour)
		world.of("worker-0").die(identity.Exit{Source: identity.ExitWait})
		settle(time.Minute)
		apply(runsAt("0 3 * * *"))
		settle(time.Hour)
		if w := m.worker("worker-0"); w.Status != records.StatusScheduled {
			t.Errorf("worker = %+v, want it scheduled when the run has ended", w)
		}
		m.stop(nil)
	})
}

func TestScheduleCallOfAScheduledWorkerFailsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := calendar(t)
		m := startMaster(t, world, t.TempDir(), 1, runsAt("0 3 * * *"), func(u *unit.Spec) {
			u.Port, u.Services = unit.AutoPort, []string{"acme.Report"}
		})
		settle(time.Minute)
		if _, err := m.Acquire(t.Context(), "acme.Report", ""); !errors.Is(err, ErrNoWorker) {
			t.Errorf("Acquire = %v, want ErrNoWorker", err)
		}
		m.stop(nil)
	})
}

func TestScheduleUnitWithScheduleIsChecked(t *testing.T) {
	for fault, change := range map[string]func(*unit.Spec){
		"never due":            func(u *unit.Spec) { u.Schedule.Cron = "0 0 30 2 *" },
		"time zone":            func(u *unit.Spec) { u.Schedule.TimeZone = "Mars/Olympus" },
		"managed":              func(u *unit.Spec) { u.Kind = unit.Integrated },
		"one replica":          func(u *unit.Spec) { u.Replicas = 2 },
		"restart policy":       func(u *unit.Spec) { u.Restart.Mode = unit.RestartAlways },
		`missed "perhaps"`:     func(u *unit.Spec) { u.Schedule.Missed = "perhaps" },
		"five fields":          func(u *unit.Spec) { u.Schedule.Cron = "@daily" },
		"set a time zone":      func(u *unit.Spec) { u.Schedule.Cron = "TZ=UTC 0 3 * * *" },
		`has the hour "25"`:    func(u *unit.Spec) { u.Schedule.Cron = "0 25 * * *" },
		`has the minute "9-3"`: func(u *unit.Spec) { u.Schedule.Cron = "9-3 * * * *" },
	} {
		u := unitOf(t, "worker", 1)
		runsAt("0 3 * * *")(&u)
		if err := u.CheckFields(); err != nil {
			t.Fatal(err)
		}
		if change(&u); u.CheckFields() == nil || !strings.Contains(u.CheckFields().Error(), fault) {
			t.Errorf("%s: %v", fault, u.CheckFields())
		}
	}
}

// tally is what became of the due times of a schedule.
type tally struct {
	times schedule.Schedule
	seen  map[records.Event]bool
	fate  map[time.Time]string
	// runs are those that were recorded, cutOff those of them of which nothing else is known.
	runs, cutOff int
}

// add reads the history of a master.
func (c *tally) add(t *testing.T, m *master) {
	t.Helper()
	snap, err := m.store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range snap.Events {
		if c.seen[e] {
			continue
		}
		c.seen[e] = true
		if e.Type == "scheduled" && strings.Contains(e.Detail, "cut off") {
			c.cutOff++
		}
		if !strings.HasPrefix(e.Type, "run-") {
			continue
		}
		n, stamp := 1, ""
		if _, err := fmt.Sscanf(e.Detail, "due at %s", &stamp); err != nil {
			if _, err := fmt.Sscanf(e.Detail, "%d due times since %s", &n, &stamp); err != nil {
				t.Fatalf("event %+v: %v", e, err)
			}
		}
		due, err := time.Parse(time.RFC3339, strings.Trim(stamp, ":,"))
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == "run-due" {
			c.runs++
		}
		for range n {
			if before := c.fate[due.UTC()]; before != "" {
				t.Errorf("due time %s: %s after %s", due, e.Type, before)
			}
			c.fate[due.UTC()] = e.Type
			due = c.times.Next(due)
		}
	}
}

// TestScheduleMonthWithCrashes kills masters at random moments, some of them due times, over a change of the clocks:
// each due time is run once, or reported as skipped or missed.
func TestScheduleMonthWithCrashes(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			text := []string{"30 2 * * *", "0,30 1-3 * * *", "*/20 * * * *"}[seed%3]
			synctest.Test(t, func(t *testing.T) { monthWithCrashes(t, text, rand.New(rand.NewPCG(seed, 3))) })
		})
	}
}

func monthWithCrashes(t *testing.T, text string, random *rand.Rand) {
	const zone = "Europe/Berlin"
	times, err := schedule.Parse(text, zone)
	if err != nil {
		t.Fatal(err)
	}
	world, dir := calendar(t), t.TempDir()
	runs := rand.New(rand.NewPCG(random.Uint64(), 5)) // of the worker's goroutine
	world.behave = func(p *fakeProcess) {
		p.exitsAfter = time.Duration(1+runs.IntN(100)) * time.Minute
		p.exitCode = runs.IntN(2)
	}
	change := func(u *unit.Spec) {
		runsAt(text)(u)
		u.Health.Readiness.Interval = time.Hour // checks would be most of the test
		u.Schedule.TimeZone = zone
		u.Schedule.Missed = []unit.Missed{unit.MissedSkip, unit.MissedRunOnce}[random.IntN(2)]
	}
	begin := time.Date(2000, 3, 12, 0, 0, 0, 0, time.UTC)
	time.Sleep(time.Until(begin))
	m := startMaster(t, world, dir, 1, change)
	settle(time.Second)
	count := &tally{times: times, seen: map[records.Event]bool{}, fate: map[time.Time]string{}}
	for end := begin.AddDate(0, 0, 30); time.Now().Before(end); {
		wait := time.Duration(random.Int64N(int64(20 * time.Hour)))
		if random.IntN(3) == 0 {
			wait = time.Until(times.Next(time.Now().Add(wait)))
		} else {
			wait = wait.Round(time.Second)
		}
		time.Sleep(wait)
		m.crash() // perhaps while the run begins
		synctest.Wait()
		if random.IntN(2) == 0 {
			time.Sleep(time.Duration(random.Int64N(int64(6 * time.Hour))))
		}
		m = startMaster(t, world, dir, 1, change)
		settle(time.Second)
		count.add(t, m)
	}
	settle(24 * time.Hour)
	count.add(t, m)
	last := m.worker("worker-0").Due.Last
	expected := 0
	for due := times.Next(begin); !due.After(last); due = times.Next(due) {
		expected++
		if count.fate[due] == "" {
			t.Errorf("due time %s was neither run nor reported", times.Local(due))
		}
	}
	// A run that was cut off before there was a process is reported as one.
	starts := world.starts("worker-0")
	if starts > count.runs || starts < count.runs-count.cutOff || count.runs == 0 || len(count.fate) != expected {
		t.Errorf("%d processes, %d runs, %d of them cut off, %d due times with a fate, want %d",
			starts, count.runs, count.cutOff, len(count.fate), expected)
	}
	t.Logf("%s: %d due times, %d runs, %d processes", text, expected, count.runs, starts)
	m.stop(nil)
}
