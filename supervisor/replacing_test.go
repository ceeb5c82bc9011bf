package supervisor

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// A reload that is cut off goes on with the next master, which also lets no new worker take the old version of a
// dependency for the new one.
func TestResumedReloadReplacesDependenciesBeforeTheirDependentsStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		// The crash comes while the first of two dependencies takes its whole grace to end.
		world.behave = func(p *fakeProcess) { p.ignoresTerm = p.worker == "cache-0" }
		units := []unit.Spec{dependent(t, "cache"), dependent(t, "db"), dependent(t, "user", "cache started")}
		m := startUnits(t, world, openStore(t, world, dir), units...)
		settle(time.Minute)
		units[0].Args, units[1].Args = []string{"--new"}, []string{"--new"}
		units = append(units, dependent(t, "app", "db ready"))
		applied := make(chan error, 1)
		go func() { applied <- m.Apply(t.Context(), units...) }()
		settle(time.Second)
		m.want("app-0", records.StatusWaiting, "db: db-0 is to be replaced")
		m.crash()
		t.Logf("the reload ends with the master: %v", <-applied)
		world.set(func() { world.acts = nil })
		m = startUnits(t, world, openStore(t, world, dir), units...)
		settle(time.Minute)
		got := slices.DeleteFunc(world.did(), func(act string) bool { return strings.Contains(act, "cache") })
		if want := []string{"terminate db-0", "start db-0", "start app-0"}; !slices.Equal(got, want) {
			t.Errorf("it did %q, want %q", got, want)
		}
		m.stop(nil)
	})
}
