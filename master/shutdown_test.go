package master

import (
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/internal/eventtype"
)

// Shutdown ends Run, and the workers are left running or not as the first request says.
func TestShutdownEndsRun(t *testing.T) {
	for _, detach := range []bool{false, true} {
		m := mustNew(t, options(t))
		ended := make(chan error, 1)
		go func() { ended <- m.Run(t.Context()) }()
		<-m.Ready()
		wait, err := m.Shutdown(t.Context(), detach)
		if err != nil {
			t.Fatal(err)
		}
		again, err := m.Shutdown(t.Context(), detach)
		if err != nil {
			t.Errorf("the same again: %v", err)
		}
		if _, err := m.Shutdown(t.Context(), !detach); err == nil {
			t.Error("a contradictory request is accepted")
		}
		if err := errors.Join(wait(t.Context()), again(t.Context()), <-ended); err != nil {
			t.Error(err)
		}
		snap, err := m.store.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		recorded := 0
		for _, e := range snap.Events {
			if e.Type == eventtype.Down && !detach || e.Type == eventtype.Detached && detach {
				recorded++
			}
		}
		if recorded != 1 {
			t.Errorf("%d events of the end are recorded, want 1: %v", recorded, snap.Events)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}

// An operator gets the outcome before the admin server ends.
func TestOperatorsGetTheOutcomeOfTheEnd(t *testing.T) {
	for _, outcome := range []error{nil, errors.New("stop worker-0: 1 process is left")} {
		m := mustNew(t, options(t))
		served := make(chan error, 1)
		go func() { served <- m.admin.server.Serve(m.admin.listener) }()
		conn, err := grpc.NewClient("unix://"+AdminSocket(m.options.RuntimeDir),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		stream, err := adminpb.NewAdminClient(conn).Shutdown(t.Context(), &adminpb.ShutdownRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		m.endAdmin(outcome)
		_, err = stream.Recv()
		if outcome == nil && !errors.Is(err, io.EOF) {
			t.Errorf("the stream ends with %v", err)
		}
		if s := status.Convert(err); outcome != nil && (s.Code() != codes.Aborted || s.Message() != outcome.Error()) {
			t.Errorf("the stream ends with %v, want ABORTED and %q", err, outcome)
		}
		if err := errors.Join(<-served, conn.Close(), m.Close()); err != nil {
			t.Error(err)
		}
	}
}
