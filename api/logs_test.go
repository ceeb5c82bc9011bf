package api

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/logs/offsets"
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

// A text that does not fit in a message is sent in parts, and its position with the last one only: a client that got
// some of them asks for the whole again.
func TestPositionsOfTextsInParts(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 2*mostText+1)
	var texts []*adminpb.LogText
	err := sendChunks([]tail.Chunk{
		{Worker: "a-0", Text: long, Position: &tail.Position{File: 1, Offset: 5, Size: 2, Sum: 3, Inode: 4}},
		{Worker: "b-0", Text: []byte("b\n"), Position: &tail.Position{File: 7}},
		{Worker: "b-0", Notice: "n"},
		{Worker: "a-0", Position: &tail.Position{File: 2}},
	}, func(r *adminpb.LogsResponse) error {
		texts = append(texts, r.GetTexts()...)
		return nil
	})
	var got strings.Builder
	for _, text := range texts {
		fmt.Fprintln(&got, text.GetWorker(), len(text.GetText()), text.GetPart(), text.GetPosition().GetFile())
	}
	want := fmt.Sprintf("a-0 %d true 0\na-0 %d true 0\na-0 1 false 1\nb-0 2 false 7\nb-0 0 false 0\na-0 0 false 2\n",
		mostText, mostText)
	if err != nil || got.String() != want {
		t.Errorf("%v, sent\n%swant\n%s", err, got.String(), want)
	}
	for _, p := range []tail.Position{{}, {File: 1, Offset: 5, Size: 2, Sum: 3, Inode: 4}} {
		if back := positionOf(positionToProto(p)); back != p {
			t.Errorf("%+v comes back as %+v", p, back)
		}
	}
}

// A client that asks for positions is told at once that it gets them, also while the workers of an earlier master are
// not known yet; and only one that follows can ask.
func TestRequestsForPositions(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client, serve := notRecovered(t)
	stream, err := client.Logs(ctx, &adminpb.LogsRequest{Names: []string{"web"}, Follow: true, Positions: true})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := stream.Recv(); err != nil || !r.GetPositions() || len(r.GetTexts()) > 0 {
		t.Errorf("%v, %v comes first", r, err)
	}
	serve()
	for name, req := range map[string]*adminpb.LogsRequest{
		"positions": {Names: []string{"a"}, Positions: true},
		"after":     {Names: []string{"a"}, After: map[string]*adminpb.LogPosition{"a-0": {}}},
	} {
		stream, err := client.Logs(ctx, req)
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s without follow: %v", name, err)
		}
	}
}

// notRecovered returns a client of a master that does not know the workers of its unit "web" before serve is called.
func notRecovered(t *testing.T) (client adminpb.AdminClient, serve func()) {
	t.Helper()
	db, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := supervisor.New(supervisor.Options{Store: db},
		unit.Spec{Name: "web", Path: filepath.Join(t.TempDir(), "missing"), Replicas: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		serving.Wait()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	a := &Admin{Store: db, Supervisor: s, Tails: tail.NewHub(t.TempDir(), &offsets.Tables{})}
	srv := NewAdminServer(a, NewBusiness(s, db))
	conn := serveOn(t, srv, srv.Stop, "unix", filepath.Join(t.TempDir(), "admin.sock"))
	return adminpb.NewAdminClient(conn), func() {
		serving.Go(func() {
			if err := s.Serve(ctx); err != nil {
				t.Error(err)
			}
		})
		<-s.Recovered()
	}
}

// askedForEvents is a stream of Events whose client is in the same process.
type askedForEvents struct {
	grpc.ServerStream
	ctx  context.Context
	sent []*adminpb.EventsResponse
}

func (s *askedForEvents) Context() context.Context { return s.ctx }

func (s *askedForEvents) Send(resp *adminpb.EventsResponse) error {
	s.sent = append(s.sent, resp)
	return nil
}

// A follower goes on from an earlier master while the workers of that one are being recovered, however long that takes.
// It is told at once that this master answers, and up to where it need not ask again.
func TestFollowersOfNamesThatAreNotKnownYet(t *testing.T) {
	for name, test := range map[string]struct {
		req    *adminpb.EventsRequest
		before uint64 // the last one of the first message
	}{
		"after":      {&adminpb.EventsRequest{Names: []string{"web-0"}, After: 1}, 1},
		"the newest": {&adminpb.EventsRequest{Names: []string{"web-0", "db"}, Last: new(uint32(1))}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { followBeforeTheRecovery(t, test.req, test.before) })
		})
	}
}

func followBeforeTheRecovery(t *testing.T, req *adminpb.EventsRequest, before uint64) {
	db, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, typ := range []string{"started", "exited", "started"} {
		record(t, db, records.Event{Worker: "db-0", Type: typ})
	}
	s, err := supervisor.New(supervisor.Options{Store: db},
		unit.Spec{Name: "web", Path: filepath.Join(t.TempDir(), "missing"), Replicas: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var asking, serving sync.WaitGroup
	defer func() {
		cancel()
		asking.Wait()
		serving.Wait()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	a := &Admin{Store: db, Supervisor: s}
	var other askedForEvents
	other.ctx = ctx
	if err := a.Events(req, &other); status.Code(err) != codes.NotFound || len(other.sent) > 0 {
		t.Errorf("a request that does not follow gets %v, %v, want an answer", other.sent, err)
	}
	req.Follow = true
	stream := &askedForEvents{ctx: ctx}
	var ended error
	asking.Go(func() { ended = a.Events(req, stream) })
	synctest.Wait()
	if n := len(stream.sent); n != 1 || ended != nil ||
		len(stream.sent[0].GetEvents()) > 0 || stream.sent[0].GetLast() != before {
		t.Fatalf("it gets %v, %v, want to be told that this master answers, and to wait", stream.sent, ended)
	}
	serving.Go(func() {
		if err := s.Serve(ctx); err != nil {
			t.Error(err)
		}
	})
	<-s.Recovered()
	synctest.Wait()
	if len(stream.sent) < 2 || stream.sent[1].GetLast() != 3 || ended != nil {
		t.Errorf("it gets %v, %v, want the events of a unit that is known by now", stream.sent, ended)
	}
}
