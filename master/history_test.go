package master

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/store"
)

// Outages of the state and reloads of certificates are in the history, in their order.
func TestOutagesAndCertificatesAreEvents(t *testing.T) {
	db, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	failed, reloads := make(outages, 1), make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	defer following.Wait()
	defer cancel()
	following.Go(func() { journal{db, slog.New(slog.DiscardHandler)}.follow(ctx, failed, reloads) })
	reloads <- nil
	reloads <- errors.New("no PEM")
	begun := time.Now().Add(-time.Minute)
	failed.add(begun, errors.New("no space left on device"))
	want := []struct{ kind, detail string }{
		{"certificate-reloaded", ""},
		{"certificate-failed", "no PEM"},
		{"state-failed", "no space left on device"},
		{"state-repaired", "after 1m0s"},
	}
	for {
		last, grown := db.LastEvent()
		if last >= uint64(len(want)) {
			break
		}
		<-grown
	}
	got, err := db.Events(0, len(want)+1)
	if err != nil || len(got) != len(want) {
		t.Fatalf("%+v, %v, want %d events", got, err, len(want))
	}
	for i, e := range got {
		if e.Type != want[i].kind || i < 3 && e.Detail != want[i].detail {
			t.Errorf("event %d is %+v, want %+v", i, e, want[i])
		}
	}
	if !got[2].Time.Equal(begun) {
		t.Errorf("the outage began at %v, want %v", got[2].Time, begun)
	}
}
