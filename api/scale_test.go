package api

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// supervised returns a supervisor that serves a unit with a new state until the end of the test. ctx bounds the test.
func supervised(t *testing.T, u unit.Spec) (ctx context.Context, db *store.DB, s *supervisor.Supervisor) {
	t.Helper()
	db, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	if s, err = supervisor.New(supervisor.Options{Store: db}, u); err != nil {
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
	return ctx, db, s
}

// adminOf returns a client of the admin service of the supervisor, on a unix socket.
func adminOf(t *testing.T, db *store.DB, s *supervisor.Supervisor) adminpb.AdminClient {
	t.Helper()
	srv := NewAdminServer(&Admin{Store: db, Supervisor: s}, NewBusiness(s, db))
	return adminpb.NewAdminClient(serveOn(t, srv, srv.Stop, "unix", filepath.Join(t.TempDir(), "admin.sock")))
}

// The unit's executable is missing, so that no process is started.
func TestScaleOverTheAdminSocket(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	ctx, db, s := supervised(t, unit.Spec{Name: "worker", Path: missing})
	admin := adminOf(t, db, s)

	for _, test := range []struct {
		req  *adminpb.ScaleRequest
		code codes.Code
		text string
	}{
		{&adminpb.ScaleRequest{Unit: "wroker", Replicas: 1}, codes.NotFound, `no such unit: "wroker"`},
		{&adminpb.ScaleRequest{Unit: "worker", Replicas: 1001}, codes.InvalidArgument, "must be 0 to 1000"},
		{&adminpb.ScaleRequest{Unit: "worker", Replicas: -1}, codes.InvalidArgument, "must be 0 to 1000"},
		{
			&adminpb.ScaleRequest{Unit: "worker", Replicas: 1, Timeout: &durationpb.Duration{}}, codes.InvalidArgument,
			"must be above 0",
		},
		{
			&adminpb.ScaleRequest{Unit: "worker", Replicas: 1, Timeout: durationpb.New(1)}, codes.DeadlineExceeded,
			"deadline",
		},
		{
			&adminpb.ScaleRequest{Unit: "worker", Replicas: 1, Timeout: durationpb.New(time.Minute)},
			codes.FailedPrecondition, "the number is recorded, but worker-0 is not ready: ",
		},
	} {
		_, err := admin.Scale(ctx, test.req)
		if status.Code(err) != test.code || !strings.Contains(err.Error(), test.text) {
			t.Errorf("Scale(%v) = %v, want %s with %q", test.req, err, test.code, test.text)
		}
	}
	command := "worker scale worker=2"
	resp, err := admin.Scale(metadata.AppendToOutgoingContext(ctx, CommandKey, command),
		&adminpb.ScaleRequest{Unit: "worker", Replicas: 2, NoWait: true})
	if err != nil || resp.GetBefore() != 1 || resp.GetConfigured() != 0 ||
		strings.Join(resp.GetAdded(), " ") != "worker-1" || len(resp.GetRemoved()) != 0 {
		t.Errorf("Scale without waiting = %v, %v", resp, err)
	}
	state, err := admin.GetState(ctx, &adminpb.GetStateRequest{})
	if units := state.GetState().GetUnits(); err != nil || len(units) != 1 || units[0].GetName() != "worker" ||
		units[0].GetReplicas() != 0 || units[0].GetScale() != 2 || units[0].GetKind() != "integrated" {
		t.Errorf("the state's units are %v, %v", units, err)
	}
	snap, err := db.Snapshot()
	want := records.Operator{UID: uint32(os.Geteuid()), Command: command}
	if err != nil || !slices.ContainsFunc(snap.Events, func(e records.Event) bool {
		return e.Type == "scale" && e.Unit == "worker" && e.Operator != nil && *e.Operator == want
	}) {
		t.Errorf("the history names no operator: %v, %v", snap.Events, err)
	}
	resp, err = admin.Scale(ctx, &adminpb.ScaleRequest{Unit: "worker"})
	if err != nil || strings.Join(resp.GetRemoved(), " ") != "worker-0 worker-1" {
		t.Errorf("Scale to the configured number = %v, %v", resp, err)
	}
}
