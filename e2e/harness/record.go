//go:build e2e && linux

package harness

import (
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
)

// EditRecord changes the record of a worker while no master runs, or removes it if change is nil.
func (h *Host) EditRecord(id string, change func(*records.Worker)) {
	h.T.Helper()
	db, err := store.Open(h.State, store.Options{})
	if err != nil {
		h.T.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			h.T.Error(err)
		}
	}()
	snap, err := db.Snapshot()
	if err != nil {
		h.T.Fatal(err)
	}
	for _, w := range snap.Workers {
		if w.ID != id {
			continue
		}
		mutation := records.DeleteWorker(id)
		if change != nil {
			change(&w)
			mutation = records.PutWorker(w)
		}
		if err := db.Apply(h.T.Context(), mutation); err != nil {
			h.T.Fatal(err)
		}
		return
	}
	h.T.Fatalf("no record of %s", id)
}
