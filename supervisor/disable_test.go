package supervisor

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The workers of a disabled unit are stopped and forgotten with that reason.
func TestDisabledIsTheReasonOfTheStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startMaster(t, newFakeOS(t), t.TempDir(), 2)
		settle(time.Second)
		if _, err := m.perform(t.Context(), Act{Verb: VerbDisable, Names: []string{"worker"}}); err != nil {
			t.Fatal(err)
		}
		snap, err := m.store.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		reasons := map[string][]string{}
		for _, e := range snap.Events {
			if e.Type == "stopping" || e.Type == "removed" {
				reasons[e.Worker] = append(reasons[e.Worker], e.Detail)
			}
		}
		const disabled = "its unit was disabled"
		want := map[string][]string{"worker-0": {disabled, disabled}, "worker-1": {disabled, disabled}}
		if diff := cmp.Diff(want, reasons); diff != "" {
			t.Errorf("reasons of the stops (-want +got):\n%s", diff)
		}
		m.stop(nil)
	})
}
