package api

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/logs/tail"
)

// The streams of a user that do not end by themselves are bounded, over all methods and connections. Everything else
// goes on, also acts whose progress is a stream, and the end of one makes room for another.
func TestFollowersAreBounded(t *testing.T) {
	db, admin := historyOf(t, 100, records.Event{Type: "first"})
	var conns []*grpc.ClientConn
	for range 8 {
		conn, err := grpc.NewClient("unix:"+filepath.Join(db.Dir(), "admin.sock"),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		conns = append(conns, conn)
	}
	open := func(n int) (end func(), err error) {
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		conn := conns[n%len(conns)]
		if n%2 == 0 {
			stream, err := adminpb.NewRegistryClient(conn).Watch(ctx, &adminpb.WatchRequest{})
			if err == nil {
				_, err = stream.Recv()
			}
			return cancel, err
		}
		stream, err := adminpb.NewAdminClient(conn).Events(ctx, &adminpb.EventsRequest{Follow: true})
		if err == nil {
			_, err = stream.Recv()
		}
		return cancel, err
	}
	var ends []func()
	for n := range MaxFollowed {
		end, err := open(n)
		if err != nil {
			t.Fatalf("stream %d: %v", n, err)
		}
		ends = append(ends, end)
	}
	want := fmt.Sprintf("user %d has %d streams", os.Getuid(), MaxFollowed)
	for n := range 2 {
		_, err := open(n)
		if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), want) {
			t.Errorf("a stream beyond the limit: %v, want RESOURCE_EXHAUSTED, %q", err, want)
		}
	}
	if _, err := admin.GetState(t.Context(), &adminpb.GetStateRequest{}); err != nil {
		t.Errorf("GetState: %v", err)
	}
	reload, err := admin.Reload(t.Context(), &adminpb.ReloadRequest{})
	if err == nil {
		_, err = reload.Recv()
	}
	if status.Code(err) != codes.Unimplemented { // this master has nothing to reload
		t.Errorf("Reload: %v", err)
	}
	ends[0]()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, err = open(0); err == nil || time.Now().After(deadline) {
			break
		}
	}
	if err != nil {
		t.Errorf("after the end of one: %v", err)
	}
}

// Users do not take streams from each other.
func TestFollowersOfUsers(t *testing.T) {
	var f followers
	var leave func()
	for range MaxFollowed {
		var err error
		if leave, err = f.enter(1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.enter(1); err == nil {
		t.Error("a user has more streams than the maximum")
	}
	other, err := f.enter(2)
	if err != nil {
		t.Errorf("another user: %v", err)
	}
	leave()
	if _, err := f.enter(1); err != nil {
		t.Errorf("after the end of one: %v", err)
	}
	if other(); len(f.open) != 1 {
		t.Errorf("%d users are known, want 1", len(f.open))
	}
}

// A message of text is small, whatever the chunks are, and no byte is lost.
func TestMessagesOfLogsAreSmall(t *testing.T) {
	long := strings.Repeat("x", 3*mostText+1) + "\n"
	chunks := []tail.Chunk{
		{Worker: "a-0", Text: []byte("first\n")},
		{Worker: "b-0", Notice: "a notice"},
		{Worker: "a-0", Text: []byte(long)},
		{Worker: "a-0", Text: []byte("last\n")},
	}
	var text strings.Builder
	notices := 0
	err := sendChunks(chunks, func(m *adminpb.LogsResponse) error {
		if n := proto.Size(m); n > 32<<10 {
			t.Errorf("a message has %d bytes", n)
		}
		for _, part := range m.GetTexts() {
			text.Write(part.GetText())
			if part.GetNotice() != "" {
				notices++
			}
		}
		return nil
	})
	if err != nil || text.String() != "first\n"+long+"last\n" || notices != 1 {
		t.Errorf("%v, %d bytes of text, %d notices", err, text.Len(), notices)
	}
}
