package master

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// Of two reloads at a time, the one that reads the file last is applied last: else the older content would win.
func TestRereadsKeepTheirOrder(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		db, err := store.Open(t.TempDir(), store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		log := slog.New(slog.DiscardHandler)
		sup, err := supervisor.New(supervisor.Options{Store: db, Log: log})
		if err != nil {
			t.Fatal(err)
		}
		ctx, end := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- sup.Serve(ctx) }()
		<-sup.Recovered()

		var file atomic.Value // the name of its unit
		slow := make(chan struct{})
		m := &Master{sup: sup, log: log, reread: make(chan struct{}, 1)}
		m.options.ReadUnits = func() ([]unit.Spec, []string, error) {
			name := file.Load().(string)
			if name == "older" {
				<-slow
			}
			return []unit.Spec{{Name: name, Path: self}}, nil, nil
		}
		results := make(chan error, 2)
		for _, name := range []string{"older", "newer"} {
			file.Store(name)
			go func() {
				results <- m.Reread(t.Context(), false, func([]supervisor.Change, []string) {}, func() {})
			}()
			synctest.Wait() // the first one reads, the second one has done all that it can
		}
		close(slow)
		for range 2 {
			if err := <-results; err != nil {
				t.Errorf("Reread = %v", err)
			}
		}
		snap, err := db.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		var wanted []string
		for _, u := range snap.Units {
			if !u.Retired {
				wanted = append(wanted, u.Name)
			}
		}
		if got := strings.Join(wanted, " "); got != "newer" {
			t.Errorf("the units are %q, want those that were read last", got)
		}
		end()
		if err := <-ended; err != nil {
			t.Errorf("Serve = %v", err)
		}
		if err := db.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
}
