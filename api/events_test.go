package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor"
)

// historyOf serves the admin service of a master with the given events and no worker.
func historyOf(t *testing.T, most int, events ...records.Event) (*store.DB, adminpb.AdminClient) {
	t.Helper()
	dir := t.TempDir()
	db, err := store.Open(dir, store.Options{MaxEvents: most})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	for _, e := range events {
		record(t, db, e)
	}
	sup, err := supervisor.New(supervisor.Options{Store: db})
	if err != nil {
		t.Fatal(err)
	}
	srv := NewAdminServer(&Admin{Store: db, Supervisor: sup}, NewBusiness(sup, db))
	return db, adminpb.NewAdminClient(serveOn(t, srv, srv.Stop, "unix", filepath.Join(dir, "admin.sock")))
}

func record(t *testing.T, db *store.DB, e records.Event) {
	t.Helper()
	if err := db.Apply(t.Context(), records.AppendEvent(e)); err != nil {
		t.Fatal(err)
	}
}

// received reads n events, or all of the stream if n is below 0, and returns them as "seq/worker or unit/type".
func received(t *testing.T, stream grpc.ServerStreamingClient[adminpb.EventsResponse], n int) string {
	t.Helper()
	var texts []string
	for n < 0 || len(texts) < n {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			texts = append(texts, status.Code(err).String())
			break
		}
		if d := resp.GetDropped(); d > 0 {
			texts = append(texts, fmt.Sprintf("dropped %d", d))
		}
		for _, e := range resp.GetEvents() {
			texts = append(texts, fmt.Sprintf("%d/%s%s/%s", e.GetSeq(), e.GetWorker(), e.GetUnit(), e.GetType()))
		}
	}
	return strings.Join(texts, " ")
}

func TestEventsAreSelected(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	_, admin := historyOf(t, 100,
		records.Event{Time: at, Type: "master-started"},
		records.Event{Time: at.Add(time.Minute), Worker: "web-0", Type: "started"},
		records.Event{Time: at.Add(2 * time.Minute), Worker: "web-1", Type: "started"},
		records.Event{Time: at.Add(3 * time.Minute), Unit: "web", Type: "scale"},
		records.Event{Time: at.Add(4 * time.Minute), Worker: "web-1", Type: "exited"},
	)
	for _, test := range []struct {
		req  *adminpb.EventsRequest
		want string
	}{
		{
			&adminpb.EventsRequest{},
			"1//master-started 2/web-0/started 3/web-1/started 4/web/scale 5/web-1/exited",
		},
		{&adminpb.EventsRequest{Last: new(uint32(2))}, "4/web/scale 5/web-1/exited"},
		{&adminpb.EventsRequest{Last: new(uint32(0))}, ""},
		{&adminpb.EventsRequest{Names: []string{"web-1"}}, "3/web-1/started 5/web-1/exited"},
		{
			&adminpb.EventsRequest{Names: []string{"web"}},
			"2/web-0/started 3/web-1/started 4/web/scale 5/web-1/exited",
		},
		{&adminpb.EventsRequest{Types: []string{"exited", "scale"}}, "4/web/scale 5/web-1/exited"},
		{&adminpb.EventsRequest{After: 3, Names: []string{"web"}}, "4/web/scale 5/web-1/exited"},
		{&adminpb.EventsRequest{After: 5}, ""},
		{&adminpb.EventsRequest{After: 6}, "OutOfRange"},
		{&adminpb.EventsRequest{Since: timestamppb.New(at.Add(3 * time.Minute))}, "4/web/scale 5/web-1/exited"},
		{&adminpb.EventsRequest{Names: []string{"db"}}, "NotFound"},
	} {
		stream, err := admin.Events(t.Context(), test.req)
		if err != nil {
			t.Fatal(err)
		}
		if got := received(t, stream, -1); got != test.want {
			t.Errorf("%v: %s, want %s", test.req, got, test.want)
		}
	}
}

func TestEventsAreFollowed(t *testing.T) {
	db, admin := historyOf(t, 100,
		records.Event{Worker: "web-0", Type: "started"}, records.Event{Type: "master-started"})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := admin.Events(ctx, &adminpb.EventsRequest{Follow: true, Names: []string{"web"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := received(t, stream, 1); got != "1/web-0/started" {
		t.Errorf("recorded: %s", got)
	}
	record(t, db, records.Event{Type: "master-started"}) // not of the unit
	record(t, db, records.Event{Worker: "web-0", Type: "exited"})
	if got := received(t, stream, 1); got != "4/web-0/exited" {
		t.Errorf("new: %s", got)
	}
	cancel()
	if got := received(t, stream, -1); got != codes.Canceled.String() {
		t.Errorf("after the end of the client: %s", got)
	}
}

// A follower that reads too slowly is told how many events it has missed, and delays nobody.
func TestASlowFollowerIsToldWhatItMissed(t *testing.T) {
	const kept = 10
	db, admin := historyOf(t, kept, records.Event{Type: "first"})
	stream, err := admin.Events(t.Context(), &adminpb.EventsRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := received(t, stream, 1); got != "1//first" {
		t.Fatalf("recorded: %s", got)
	}
	// More than the windows of the stream and of its connection take.
	long := strings.Repeat("x", 60<<10)
	for range 20 {
		var muts []records.Mutation
		for range 20 {
			muts = append(muts, records.AppendEvent(records.Event{Type: "many", Detail: long}))
		}
		if err := db.Apply(t.Context(), muts...); err != nil {
			t.Fatal(err)
		}
	}
	var events, dropped uint64
	for events+dropped < 400 {
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		events, dropped = events+uint64(len(resp.GetEvents())), dropped+resp.GetDropped()
	}
	if events+dropped != 400 || dropped == 0 {
		t.Errorf("%d events and %d dropped ones, want 400 together", events, dropped)
	}
}
