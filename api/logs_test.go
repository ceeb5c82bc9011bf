package api

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/adminpb"
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

// A client that asks for positions is told first that it gets them, and only one that follows can ask.
func TestRequestsForPositions(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	hub := tail.NewHub(t.TempDir(), &offsets.Tables{})
	err := SendLogs(ctx, hub, nil, &adminpb.LogsRequest{Names: []string{"a"}, Follow: true, Positions: true},
		make(chan tail.Source), func(r *adminpb.LogsResponse) error {
			if !r.GetPositions() || len(r.GetTexts()) > 0 {
				t.Errorf("%v comes first", r)
			}
			cancel()
			return nil
		})
	if status.Code(err) != codes.Canceled && err != nil {
		t.Error(err)
	}
	if ctx.Err() == nil {
		t.Error("nothing comes")
	}
	for name, req := range map[string]*adminpb.LogsRequest{
		"positions": {Names: []string{"a"}, Positions: true},
		"after":     {Names: []string{"a"}, After: map[string]*adminpb.LogPosition{"a-0": {}}},
	} {
		err := SendLogs(t.Context(), hub, nil, req, nil, func(*adminpb.LogsResponse) error { return nil })
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s without follow: %v", name, err)
		}
	}
}
