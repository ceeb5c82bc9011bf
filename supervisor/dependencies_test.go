package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// dependent returns a unit of one worker with the dependencies, each in the form "db ready".
func dependent(t *testing.T, name string, on ...string) unit.Spec {
	t.Helper()
	u := unitOf(t, name, 1)
	for _, d := range on {
		name, condition, _ := strings.Cut(d, " ")
		u.DependsOn = append(u.DependsOn, unit.Dependency{Unit: name, Condition: unit.Condition(condition)})
	}
	return u
}

// job is a unit whose workers end by themselves.
func job(t *testing.T, name string, on ...string) unit.Spec {
	t.Helper()
	u := dependent(t, name, on...)
	u.Restart.Mode = unit.RestartNever
	return u
}

// want fails unless the worker has the status and the reason.
func (m *master) want(id string, status records.Status, reason string) {
	m.t.Helper()
	if w := m.worker(id); w.Status != status || w.Reason != reason {
		m.t.Errorf("%s is %s: %q, want %s: %q", id, w.Status, w.Reason, status, reason)
	}
}

func TestWorkerWaitsForEachConditionOfItsDependencies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) {
			switch p.worker {
			case "db-0":
				p.readyAfter = 10 * time.Second
			case "migrate-0":
				p.exitsAfter = 5 * time.Minute // longer than the start timeout of those that wait
			case "cfg-0":
				p.readyAfter = -1
			}
		}
		cfg := dependent(t, "cfg")
		cfg.Start.Timeout = time.Hour
		m := startUnits(t, world, openStore(t, world, t.TempDir()),
			dependent(t, "app", "db ready", "cfg started", "migrate completed"),
			job(t, "migrate", "db ready"), dependent(t, "db"), cfg)
		settle(time.Second)
		if got, want := m.ids(), "app-0 waiting, migrate-0 waiting, db-0 starting, cfg-0 starting"; got != want {
			t.Errorf("workers are %s, want %s", got, want)
		}
		if m.Status() != Running {
			t.Errorf("the master is %s, want it to run: a waiting worker is recovered", m.Status())
		}
		m.want("app-0", records.StatusWaiting, fmt.Sprintf("db: db-0 is starting: port %d: connection refused",
			m.worker("db-0").Instance.Port))
		settle(10 * time.Second)
		m.want("app-0", records.StatusWaiting, "migrate: migrate-0 is running")
		before := m.recorded("app-0")
		settle(4 * time.Minute)
		if app := m.worker("app-0"); app.Status != records.StatusWaiting || app.Instance != nil || app.Port != 0 {
			t.Errorf("app-0 = %+v, want it waiting, with nothing", app)
		}
		if got := m.recorded("app-0"); got.Reason != before.Reason {
			t.Errorf("the reason %q was recorded, want that only a change of the status is", got.Reason)
		}
		settle(time.Minute)
		m.want("app-0", records.StatusRunning, "")
		app := m.worker("app-0")
		if app.Restarts != 0 || app.Incarnation != 1 || len(app.History.Spent) != 0 || app.History.Backoff != 0 {
			t.Errorf("app-0 = %+v, want that the wait has cost nothing", app)
		}
		if got := world.did(); slices.Index(got, "start db-0") > slices.Index(got, "start migrate-0") ||
			got[len(got)-1] != "start app-0" {
			t.Errorf("started in the order %q", got)
		}
		m.stop(nil)
	})
}

func TestFailedDependencyIsTheReasonOfTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) {
			if p.worker == "migrate-0" {
				p.exitsAfter, p.exitCode = time.Second, 1
			}
		}
		app, top := dependent(t, "app", "migrate completed"), dependent(t, "top", "app ready")
		top.Services = []string{"pkg.Top"}
		m := startUnits(t, world, openStore(t, world, t.TempDir()), job(t, "migrate"), app, top)
		settle(time.Minute)
		const why = "migrate: migrate-0 has failed: exited with code 1"
		m.want("app-0", records.StatusWaiting, why)
		m.want("top-0", records.StatusWaiting, "app: app-0 is waiting: "+why)
		for _, id := range []string{"app-0", "top-0"} {
			if rec := m.recorded(id); rec.Status != records.StatusWaiting || !strings.HasSuffix(rec.Reason, why) {
				t.Errorf("recorded: %+v, want why it waits in vain", rec)
			}
		}
		// A call that only a worker in vain could answer does not wait for it.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := m.Acquire(ctx, "pkg.Top", ""); !errors.Is(err, ErrNoWorker) ||
			!strings.Contains(err.Error(), why) {
			t.Errorf("Acquire = %v, want it to fail at once with the reason", err)
		}
		world.set(func() {
			world.behave = func(p *fakeProcess) {
				if p.worker == "migrate-0" {
					p.exitsAfter = time.Second
				}
			}
		})
		mended := job(t, "migrate")
		mended.Args = []string{"--mended"}
		if err := m.Apply(t.Context(), mended, app, top); err != nil {
			t.Errorf("Apply = %v", err)
		}
		settle(time.Second)
		if got, want := m.ids(), "migrate-0 completed, app-0 running, top-0 running"; got != want {
			t.Errorf("workers are %s, want %s", got, want)
		}
		m.stop(nil)
	})
}

// As with Compose, a running worker stays as it is. Only its own next start waits again.
func TestRunningWorkerStaysWhenItsDependencyEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startUnits(t, world, openStore(t, world, t.TempDir()), dependent(t, "app", "db ready"), dependent(t, "db"))
		settle(time.Minute)
		first := world.of("app-0")
		world.set(func() {
			world.behave = func(p *fakeProcess) { p.readyAfter = time.Since(world.birth) + 20*time.Second }
		})
		world.of("db-0").die(identity.Exit{Code: 1, Source: identity.ExitWait})
		settle(time.Second)
		if got, want := m.ids(), "app-0 running, db-0 starting"; got != want || first.isDead() {
			t.Errorf("workers are %s, want %s", got, want)
		}
		first.die(identity.Exit{Code: 1, Source: identity.ExitWait})
		settle(time.Second)
		if w := m.worker("app-0"); w.Status != records.StatusWaiting || w.Restarts != 1 {
			t.Errorf("app-0 = %+v, want it waiting for its restart", w)
		}
		settle(25 * time.Second)
		if got, want := m.ids(), "app-0 starting, db-0 running"; got != want || world.starts("app-0") != 2 {
			t.Errorf("workers are %s, want %s", got, want)
		}
		settle(25 * time.Second)
		if w := m.worker("app-0"); w.Status != records.StatusRunning || w.Restarts != 1 || len(w.History.Spent) != 1 {
			t.Errorf("app-0 = %+v, want that only its exit has cost a restart", w)
		}
		m.stop(nil)
	})
}

// A restart that is due after a backoff, and the retry of a failed worker, wait as well.
func TestRestartAfterABackoffWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		app := dependent(t, "app", "db ready")
		app.Restart.Budget = unit.RestartBudget{Restarts: 1, Window: time.Hour}
		world.behave = func(p *fakeProcess) {
			if p.worker == "app-0" {
				p.exitsAfter, p.exitCode = 100*time.Millisecond, 1
			}
		}
		m := startUnits(t, world, openStore(t, world, t.TempDir()), app, dependent(t, "db"))
		settle(10 * time.Second)
		if got := m.ids(); got != "app-0 failed, db-0 running" {
			t.Errorf("workers are %s", got)
		}
		world.set(func() { world.behave = func(p *fakeProcess) { p.readyAfter = -1 } })
		world.of("db-0").die(identity.Exit{Code: 1, Source: identity.ExitWait})
		starts := world.starts("app-0")
		settle(6 * time.Minute) // it is tried again after five
		if w := m.worker("app-0"); w.Status != records.StatusWaiting || world.starts("app-0") != starts {
			t.Errorf("app-0 = %+v, want it waiting instead of tried again", w)
		}
		m.stop(nil)
	})
}

func TestDependentsAreStoppedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startUnits(t, world, openStore(t, world, t.TempDir()), dependent(t, "db"), dependent(t, "app", "db ready"),
			dependent(t, "top", "app started"), dependent(t, "other"), dependent(t, "late", "job ready"), job(t, "job"))
		settle(time.Minute)
		world.of("job-0").die(identity.Exit{Source: identity.ExitWait})
		settle(time.Second)
		m.crash() // so that late would be started anew
		m = startUnits(t, world, openStore(t, world, m.store.Dir()), dependent(t, "db"),
			dependent(t, "app", "db ready"),
			dependent(t, "top", "app started"), dependent(t, "other"), dependent(t, "late", "job ready"), job(t, "job"))
		settle(time.Second)
		top := world.of("top-0")
		top.set(func() { top.ignoresTerm = true }) // takes its whole grace of 10 s
		world.set(func() { world.acts = nil })
		m.end(nil)
		settle(5 * time.Second)
		acts := world.did()
		slices.Sort(acts)
		if want := []string{"terminate late-0", "terminate other-0", "terminate top-0"}; !slices.Equal(acts, want) {
			t.Errorf("within the grace of the last dependent it did %q, want %q", acts, want)
		}
		// A dependency that ends before its turn is not started again.
		world.of("db-0").die(identity.Exit{Code: 1, Source: identity.ExitWait})
		if err := <-m.ended; err != nil {
			t.Errorf("supervisor ended with %v", err)
		}
		if acts = world.did()[3:]; !slices.Equal(acts, []string{"terminate app-0"}) {
			t.Errorf("then it did %q, want app-0 stopped and db-0 left ended", acts)
		}
		if world.living() != 0 {
			t.Errorf("%d processes live", world.living())
		}
		if err := m.store.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestHurryEndsAnOrderedStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) { p.ignoresTerm = true }
		m := startUnits(t, world, openStore(t, world, t.TempDir()), chain(t, 5)...)
		settle(time.Minute)
		began := time.Now()
		m.end(nil)
		settle(time.Second)
		m.Hurry()
		if err := <-m.ended; err != nil || time.Since(began) > 2*time.Second {
			t.Errorf("supervisor ended with %v after %s", err, time.Since(began))
		}
		if err := m.store.Close(); err != nil || world.living() != 0 {
			t.Errorf("%d processes live, %v", world.living(), err)
		}
	})
}

// chain returns units of which each one depends on the one before.
func chain(t *testing.T, n int) []unit.Spec {
	t.Helper()
	units := []unit.Spec{dependent(t, "u0")}
	for i := 1; i < n; i++ {
		units = append(units, dependent(t, fmt.Sprint("u", i), fmt.Sprintf("u%d ready", i-1)))
	}
	slices.Reverse(units) // the order in the file does not matter
	return units
}

func TestLongChainStartsWithoutPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startUnits(t, world, openStore(t, world, t.TempDir()), chain(t, 100)...)
		settle(time.Second) // no worker waits for a timer
		for _, w := range m.Workers() {
			if w.Status != records.StatusRunning {
				t.Errorf("%s is %s: %s", w.ID, w.Status, w.Reason)
			}
		}
		m.stop(nil)
	})
}

// What lives is adopted at once, whatever it depends on. Only starts wait.
func TestOrderIsNotRepeatedForSurvivors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		units := []unit.Spec{
			dependent(t, "app", "db ready"), dependent(t, "db"), dependent(t, "late", "db ready"), dependent(t, "cfg"),
			dependent(t, "user", "cfg started"),
		}
		m := startUnits(t, world, openStore(t, world, dir), units...)
		settle(time.Minute)
		survivor := world.of("app-0")
		world.set(func() {
			world.behave = func(p *fakeProcess) { p.readyAfter = time.Since(world.birth) + 20*time.Second }
		})
		for _, id := range []string{"db-0", "late-0", "user-0"} {
			world.of(id).die(identity.Exit{Signal: 9, Source: identity.ExitUnknown})
		}
		m.crash()
		m = startUnits(t, world, openStore(t, world, dir), units...)
		<-m.Recovered()
		if w := m.worker("app-0"); !w.Ready || !w.Adopted || survivor.isDead() {
			t.Errorf("app-0 = %+v, want it adopted", w)
		}
		settle(15 * time.Second)
		if got := m.ids(); got != "app-0 running, db-0 starting, late-0 waiting, cfg-0 running, user-0 starting" {
			t.Errorf("workers are %s", got)
		}
		m.crash() // while late-0 waits
		m = startUnits(t, world, openStore(t, world, dir), units...)
		settle(time.Second)
		if got := m.ids(); got != "app-0 running, db-0 starting, late-0 waiting, cfg-0 running, user-0 starting" {
			t.Errorf("workers are %s after another crash", got)
		}
		settle(time.Minute)
		if got := m.ids(); got != "app-0 running, db-0 running, late-0 running, cfg-0 running, user-0 running" {
			t.Errorf("workers are %s at last", got)
		}
		if world.starts("app-0") != 1 || world.starts("db-0") != 2 || world.starts("late-0") != 2 {
			t.Errorf("starts: app %d, db %d, late %d",
				world.starts("app-0"), world.starts("db-0"), world.starts("late-0"))
		}
		m.stop(nil)
	})
}

func TestDependencyThatCannotBeVerifiedIsNotMet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		db := dependent(t, "db")
		m := startUnits(t, world, openStore(t, world, dir), db)
		settle(time.Minute)
		m.crash()
		world.set(func() { world.attachErr = errors.New("no access") })
		m = startUnits(t, world, openStore(t, world, dir), db, dependent(t, "app", "db started"))
		settle(time.Second)
		w := m.worker("app-0")
		if w.Status != records.StatusWaiting || !strings.HasPrefix(w.Reason, "db: db-0 is held: ") {
			t.Errorf("app-0 = %+v, want it waiting for db-0, which is held", w)
		}
		if m.Status() != Running {
			t.Errorf("the master is %s", m.Status())
		}
		world.set(func() { world.attachErr = nil })
		settle(time.Minute)
		if got := m.ids(); got != "db-0 running, app-0 running" || world.starts("db-0") != 1 {
			t.Errorf("workers are %s", got)
		}
		m.stop(nil)
	})
}

// A completed dependency stays completed over restarts of the master.
func TestCompletedDependencyIsNotRunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		world.behave = func(p *fakeProcess) {
			if p.worker == "migrate-0" {
				p.exitsAfter = time.Second
			}
		}
		units := []unit.Spec{job(t, "migrate"), dependent(t, "app", "migrate completed")}
		m := startUnits(t, world, openStore(t, world, dir), units...)
		settle(time.Minute)
		m.stop(nil)
		m = startUnits(t, world, openStore(t, world, dir), units...)
		settle(time.Minute)
		if got := m.ids(); got != "migrate-0 completed, app-0 running" || world.starts("migrate-0") != 1 {
			t.Errorf("workers are %s, migrate-0 was started %d times", got, world.starts("migrate-0"))
		}
		m.stop(nil)
	})
}

func TestApplyWaitsForDependenciesThatStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startUnits(t, world, openStore(t, world, t.TempDir()), unitOf(t, "worker", 1))
		settle(time.Second)
		world.set(func() {
			world.behave = func(p *fakeProcess) {
				if p.worker == "db-0" {
					p.readyAfter = time.Since(world.birth) + 20*time.Second
				}
			}
		})
		units := []unit.Spec{unitOf(t, "worker", 1), dependent(t, "app", "db ready"), dependent(t, "db")}
		changes, err := m.Changes(t.Context(), units...)
		if err != nil || len(changes) != 2 ||
			!slices.Contains(changes[0].Reasons, "waits for db: db-0 does not exist yet") {
			t.Errorf("Changes = %+v, %v, want what app waits for", changes, err)
		}
		began := time.Now()
		if err := m.Apply(t.Context(), units...); err != nil || time.Since(began) < 20*time.Second {
			t.Errorf("Apply = %v after %s, want that it waits for app-0", err, time.Since(began))
		}
		if got := m.ids(); got != "worker-0 running, app-0 running, db-0 running" {
			t.Errorf("workers are %s", got)
		}
		// Units that others depended on are stopped after these.
		app, acts := world.of("app-0"), len(world.did())
		app.set(func() { app.ignoresTerm = true })
		done := make(chan error, 1)
		go func() { done <- m.Apply(t.Context(), unitOf(t, "worker", 1)) }()
		settle(5 * time.Second) // half of the grace of app-0
		if got := world.did()[acts:]; !slices.Equal(got, []string{"terminate app-0"}) {
			t.Errorf("it did %q, want db-0 left until app-0 has ended", got)
		}
		if err := <-done; err != nil {
			t.Errorf("Apply = %v", err)
		}
		want := []string{"terminate app-0", "terminate db-0"}
		if got := world.did()[acts:]; !slices.Equal(got, want) || !app.isDead() {
			t.Errorf("it did %q, want app-0 ended first", got)
		}
		m.stop(nil)
	})
}

// A new worker does not take the work of the old version of a dependency for that of the new one.
func TestApplyReplacesDependenciesBeforeTheirDependentsStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) {
			if p.worker == "migrate-0" {
				p.exitsAfter = 20 * time.Second
			}
		}
		m := startUnits(t, world, openStore(t, world, t.TempDir()), dependent(t, "old", "db ready"),
			job(t, "migrate"), dependent(t, "db"))
		settle(time.Minute)
		world.set(func() { world.acts = nil })
		units := []unit.Spec{
			dependent(t, "old", "db ready"), dependent(t, "app", "migrate completed"),
			job(t, "migrate", "db ready", "extra ready"),
			dependent(t, "db"), dependent(t, "extra", "db started"),
		}
		for i := range units {
			units[i].Args = []string{"--new"}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := m.Apply(ctx, units...); err != nil {
			t.Errorf("Apply = %v", err)
		}
		settle(time.Second)
		want := []string{
			"terminate db-0", "start db-0", "start extra-0", "start migrate-0", "start app-0",
			"terminate old-0", "start old-0",
		}
		if got := world.did(); !slices.Equal(got, want) {
			t.Errorf("it did %q, want %q", got, want)
		}
		if got := m.ids(); got != "old-0 running, app-0 running, migrate-0 completed, db-0 running, extra-0 running" {
			t.Errorf("workers are %s", got)
		}
		// If the replacement fails, the new workers learn it.
		world.set(func() { world.behave = func(p *fakeProcess) { p.exitsAfter, p.exitCode = time.Second, 1 } })
		units = append(units, dependent(t, "more", "migrate completed"))
		units[2].Args = []string{"--bad"}
		if err := m.Apply(ctx, units...); err == nil ||
			err.Error() != "more-0 is waiting: migrate: migrate-0 has failed: exited with code 1" {
			t.Errorf("Apply = %v, want the failed dependency", err)
		}
		settle(time.Second)
		m.want("more-0", records.StatusWaiting, "migrate: migrate-0 has failed: exited with code 1")
		m.stop(nil)
	})
}

// A dependency that does not get ready is named itself, not the worker that waits for it.
func TestApplyNamesTheDependencyThatDoesNotGetReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) { p.exitsAfter, p.exitCode, p.readyAfter = time.Second, 3, -1 }
		m := startUnits(t, world, openStore(t, world, t.TempDir()))
		settle(time.Second)
		began := time.Now()
		err := m.Apply(t.Context(), dependent(t, "app", "db ready"), dependent(t, "db"))
		if err == nil || err.Error() != "db-0 is not ready: exited with code 3" || time.Since(began) > 2*time.Second {
			t.Errorf("Apply = %v after %s, want db-0 named at its first exit", err, time.Since(began))
		}
		m.stop(nil)
	})
}

func TestApplyFailsIfADependencyHasFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) {
			if p.worker == "migrate-0" {
				p.exitsAfter, p.exitCode = time.Second, 7
			}
		}
		m := startUnits(t, world, openStore(t, world, t.TempDir()), job(t, "migrate"))
		settle(time.Minute)
		app := dependent(t, "app", "migrate completed")
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		err := m.Apply(ctx, job(t, "migrate"), app)
		if err == nil || err.Error() != "app-0 is waiting: migrate: migrate-0 has failed: exited with code 7" {
			t.Errorf("Apply = %v, want the failed dependency", err)
		}
		none := job(t, "migrate")
		none.Replicas = 0
		if err := m.Apply(ctx, none, app); err != nil {
			t.Errorf("Apply = %v, want nothing to wait for: app-0 is not new", err)
		}
		m.want("app-0", records.StatusWaiting, "migrate: it is disabled or has no replicas")
		if s, err := m.Scale(ctx, "app", 2); err != nil {
			t.Error(err)
		} else if err := s.Wait(ctx); err == nil ||
			err.Error() != "app-1 is waiting: migrate: it is disabled or has no replicas" {
			t.Errorf("Scale = %v, want the dependency", err)
		}
		// Without the dependency, the waiting workers start at once.
		if err := m.Apply(ctx, none, dependent(t, "app")); err != nil {
			t.Errorf("Apply = %v", err)
		}
		settle(time.Second)
		if got := m.ids(); got != "app-0 running, app-1 running" {
			t.Errorf("workers are %s", got)
		}
		// A dependency that is added touches no running worker.
		app.DependsOn = []unit.Dependency{{Unit: "migrate", Condition: unit.Ready}}
		changes, err := m.Changes(ctx, none, app)
		if err != nil || len(changes) != 1 || changes[0].Action != ActionUpdate ||
			changes[0].Reasons[0] != "depends_on" {
			t.Errorf("Changes = %+v, %v, want depends_on as a live change", changes, err)
		}
		if err := m.Apply(ctx, none, app); err != nil || world.starts("app-0") != 1 {
			t.Errorf("Apply = %v, app-0 was started %d times", err, world.starts("app-0"))
		}
		m.stop(nil)
	})
}

func TestApplyRefusesDependenciesThatCanNeverBeMet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startUnits(t, world, openStore(t, world, t.TempDir()), dependent(t, "a"))
		settle(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		err := m.Apply(ctx, dependent(t, "a", "b ready"), dependent(t, "b", "a ready"))
		if err == nil || !strings.Contains(err.Error(), "a -> b -> a") {
			t.Errorf("Apply = %v, want the cycle", err)
		}
		if got := m.ids(); got != "a-0 running" {
			t.Errorf("workers are %s", got)
		}
		m.stop(nil)
	})
}
