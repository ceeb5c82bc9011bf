package api

import (
	"context"
	"path/filepath"
	"sync"
	"testing"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/supervisor/logs/tail"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// A follower of several names gets the later workers of each, also if one of the names is gone.
func TestLaterWorkersOfNamesThatAreLeft(t *testing.T) {
	ctx, db, s := supervised(t, unit.Spec{Name: "left", Path: filepath.Join(t.TempDir(), "missing"), Replicas: 1})
	ctx, cancel := context.WithCancel(ctx)
	later := make(chan tail.Source)
	var passing sync.WaitGroup
	defer passing.Wait()
	defer cancel()
	passing.Go(func() {
		req := &adminpb.LogsRequest{Names: []string{"gone-0", "left"}}
		(&Admin{Store: db, Supervisor: s}).passAdded(ctx, nil, req, later)
	})
	select {
	case source := <-later:
		if source.Worker != "left-0" {
			t.Errorf("%+v is passed, want left-0", source)
		}
	case <-ctx.Done():
		t.Error("no worker is passed")
	}
}
