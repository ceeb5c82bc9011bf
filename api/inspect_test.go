package api

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// The unit's executable is missing, so that no process is started.
func TestInspectOverTheAdminSocket(t *testing.T) {
	db, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := supervisor.New(supervisor.Options{Store: db}, unit.Spec{
		Name: "worker", Path: filepath.Join(t.TempDir(), "missing"), Replicas: 2, Env: []string{"TOKEN=secret"},
		Restart: unit.RestartPolicy{Mode: unit.RestartNever},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	serving := make(chan error, 1)
	go func() { serving <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-serving; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-s.Recovered():
	case <-ctx.Done():
		t.Fatal("it does not recover")
	}
	srv := NewAdminServer(&Admin{Store: db, Supervisor: s}, NewBusiness(s, db))
	admin := adminpb.NewAdminClient(serveOn(t, srv, srv.Stop, "unix", filepath.Join(t.TempDir(), "admin.sock")))

	for _, test := range []struct {
		names []string
		want  string // ids, and the named units
	}{
		{nil, "worker-0 worker-1"},
		{[]string{"worker-1"}, "worker-1"},
		{[]string{"worker", "worker-1"}, "worker-0 worker-1 worker"},
	} {
		resp, err := admin.Inspect(ctx, &adminpb.InspectRequest{Names: test.names, Processes: true})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, in := range resp.GetInspections() {
			got = append(got, in.GetWorker().GetId())
			if p := in.GetPolicy(); p.GetRestart() != "never" || p.RetryFailed != nil || p.GetRestarts() != 10 {
				t.Errorf("policy %v", p)
			}
			if in.GetWorker().GetStatus() == "" || len(in.GetSettings()) == 0 {
				t.Errorf("inspection %v", in)
			}
			if strings.Contains(in.String(), "secret") {
				t.Errorf("an inspection has a value of the environment: %v", in)
			}
		}
		for _, u := range resp.GetUnits() {
			got = append(got, u.GetName())
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("Inspect(%q) = %q, want %q", test.names, got, test.want)
		}
	}
	_, err = admin.Inspect(ctx, &adminpb.InspectRequest{Names: []string{"wroker"}})
	if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), `did you mean "worker"?`) {
		t.Errorf("an unknown name: %v", err)
	}
}
