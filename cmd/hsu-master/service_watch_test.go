package main

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
)

func endpointIs(kind adminpb.WatchResponse_Kind, address string, healthy bool) *adminpb.WatchResponse {
	return &adminpb.WatchResponse{
		Kind: kind, Service: "pkg.A", Endpoint: &adminpb.Endpoint{Address: address, Healthy: healthy},
	}
}

// watched returns the output and the error of a watch over successive masters. Each master runs for an hour, and
// each but the first is preceded by an hour without a master.
func watched(t *testing.T, masters ...[]*adminpb.WatchResponse) (told []string, end error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		begin := time.Now()
		w := watch{
			open: func(context.Context) (nextChange, func(), error) {
				hours := int(time.Since(begin).Hours())
				switch {
				case hours > 0 && hours/2 >= len(masters):
					cancel()
					fallthrough
				case hours%2 == 1, len(masters) == 0:
					return nil, nil, exit.ErrNoMaster
				}
				says := masters[hours/2]
				return func() (*adminpb.WatchResponse, error) {
					if len(says) == 0 {
						time.Sleep(time.Until(begin.Add(time.Duration(hours+1) * time.Hour)))
						return nil, status.Error(codes.Unavailable, "the connection is closed")
					}
					change := says[0]
					says = says[1:]
					return change, nil
				}, func() {}, nil
			},
			tell: func(kind string, change *adminpb.WatchResponse) error {
				told = append(told,
					strings.TrimSpace(kind+" "+change.GetService()+" "+change.GetEndpoint().GetAddress()))
				return nil
			},
		}
		end = w.follow(ctx)
	})
	return told, end
}

func TestWatchGoesOnOverMastersAndTellsOnlyWhatIsNew(t *testing.T) {
	const added, changed, removed, current = adminpb.WatchResponse_ADDED, adminpb.WatchResponse_CHANGED,
		adminpb.WatchResponse_REMOVED, adminpb.WatchResponse_CURRENT
	whole := &adminpb.WatchResponse{Kind: added, Service: "pkg.A"}
	old := &adminpb.WatchResponse{Kind: added, Service: "pkg.Old"}
	told, err := watched(t,
		[]*adminpb.WatchResponse{
			whole, endpointIs(added, "a:1", true), endpointIs(added, "b:2", true), endpointIs(added, "c:3", true), old,
			{Kind: current},
			endpointIs(removed, "c:3", true),
		},
		// b:2 is gone, a:1 is unchanged, and c:3 is back.
		[]*adminpb.WatchResponse{
			whole, endpointIs(added, "a:1", true), endpointIs(added, "c:3", false),
			{Kind: current},
			endpointIs(changed, "c:3", true),
		},
		[]*adminpb.WatchResponse{whole, endpointIs(added, "a:1", false), {Kind: current}},
	)
	if err != nil {
		t.Error(err)
	}
	want := []string{
		"added pkg.A", "added pkg.A a:1", "added pkg.A b:2", "added pkg.A c:3", "added pkg.Old", "current",
		"removed pkg.A c:3",
		"away",
		"back", "added pkg.A c:3", "removed pkg.A b:2", "removed pkg.Old", "current", "changed pkg.A c:3",
		"away",
		"back", "changed pkg.A a:1", "removed pkg.A c:3", "current",
		"away",
	}
	if !slices.Equal(told, want) {
		t.Errorf("told\n%s\nwant\n%s", strings.Join(told, "\n"), strings.Join(want, "\n"))
	}
}

func TestWatchEndsWhereNoMasterWillAnswer(t *testing.T) {
	if told, err := watched(t); !errors.Is(err, exit.ErrNoMaster) || len(told) > 0 {
		t.Errorf("with no master at first: told %q, %v", told, err)
	}
	for name, refusal := range map[string]error{
		"of an older release": status.Error(codes.Unimplemented, "unknown service"),
		"of another user":     status.Error(codes.PermissionDenied, "user 7 may not administer this master"),
	} {
		asked := 0
		w := watch{
			open: func(context.Context) (nextChange, func(), error) {
				asked++
				return func() (*adminpb.WatchResponse, error) { return nil, refusal }, func() {}, nil
			},
			tell:  func(string, *adminpb.WatchResponse) error { return nil },
			begun: true,
		}
		if err := w.follow(t.Context()); err == nil || asked != 1 {
			t.Errorf("a master %s was asked %d times: %v", name, asked, err)
		}
	}
}

func TestWatchEndsWhereNothingCanBePrinted(t *testing.T) {
	w := watch{
		open: func(context.Context) (nextChange, func(), error) {
			return func() (*adminpb.WatchResponse, error) {
				return endpointIs(adminpb.WatchResponse_ADDED, "a:1", true), nil
			}, func() {}, nil
		},
		tell: func(string, *adminpb.WatchResponse) error { return io.ErrShortWrite },
	}
	if err := w.follow(t.Context()); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("%v, want what the writer has said", err)
	}
}
