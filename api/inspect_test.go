package api

import (
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// The unit's executable is missing, so that no process is started.
func TestInspectOverTheAdminSocket(t *testing.T) {
	ctx, db, s := supervised(t, unit.Spec{
		Name: "worker", Path: filepath.Join(t.TempDir(), "missing"), Replicas: 2, Env: []string{"TOKEN=secret"},
		Restart: unit.RestartPolicy{Mode: unit.RestartNever},
	})
	select {
	case <-s.Recovered():
	case <-ctx.Done():
		t.Fatal("it does not recover")
	}
	admin := adminOf(t, db, s)

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
	_, err := admin.Inspect(ctx, &adminpb.InspectRequest{Names: []string{"wroker"}})
	if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), `did you mean "worker"?`) {
		t.Errorf("an unknown name: %v", err)
	}
}
