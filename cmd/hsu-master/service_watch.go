package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/describe"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/terminal"
)

// Events of a watch besides the kinds of a WatchResponse.
const (
	changeAway = "away" // the master has ended, or no longer answers
	changeBack = "back" // a master answers again; the changes since then follow
)

// changeJSON is one line of the output of "service list --watch --json".
type changeJSON struct {
	Time     time.Time     `json:"time"`
	Change   string        `json:"change"` // added, changed, removed, current, away or back
	Service  string        `json:"service,omitempty"`
	Endpoint *endpointJSON `json:"endpoint,omitempty"`
}

// watchServices prints changes until it is interrupted, or nobody reads them any more.
func watchServices(c *cli.Context, f folders) error {
	w := watch{
		open: func(ctx context.Context) (nextChange, func(), error) { return openWatch(ctx, f) },
		tell: func(kind string, change *adminpb.WatchResponse) error {
			return printChange(c, kind, change, time.Now())
		},
	}
	ctx, end := terminal.WithReader(c.Context, c.App.Writer)
	defer end()
	return w.follow(ctx)
}

// nextChange waits for the next change. Its error is a gRPC status.
type nextChange func() (*adminpb.WatchResponse, error)

// openWatch opens a Watch call to the running master of these folders. stop ends it.
func openWatch(ctx context.Context, f folders) (next nextChange, stop func(), err error) {
	asking, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	conn, err := dialRegistry(asking, f)
	if err != nil {
		return nil, nil, err
	}
	stream, err := adminpb.NewRegistryClient(conn).Watch(ctx, &adminpb.WatchRequest{})
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	return stream.Recv, func() { _ = conn.Close() }, nil
}

// watch follows the services of one master after another. Each master first sends all its services and endpoints;
// watch reports only those that are new to the reader.
type watch struct {
	open func(ctx context.Context) (next nextChange, stop func(), err error)
	tell func(kind string, change *adminpb.WatchResponse) error

	known map[place]*adminpb.Endpoint // those that the reader knows as present
	begun bool                        // a master has answered
	away  bool                        // "away" has been reported
}

// place identifies an endpoint of a service, or, without an address, the service itself.
type place struct{ service, address, worker string }

func placeOf(c *adminpb.WatchResponse) place {
	return place{c.GetService(), c.GetEndpoint().GetAddress(), c.GetEndpoint().GetWorker()}
}

// follow returns nil when ctx is done. It returns an error if no master answers at first, or if one answers with
// an error that is permanent.
func (w *watch) follow(ctx context.Context) error {
	w.known = make(map[place]*adminpb.Endpoint)
	for {
		next, stop, err := w.open(ctx)
		if err == nil {
			var printed error
			printed, err = w.listen(next)
			stop()
			if printed != nil {
				return printed
			}
		}
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it was interrupted
		case !w.begun, errors.Is(err, fs.ErrPermission), status.Code(err) == codes.Unimplemented,
			status.Code(err) == codes.PermissionDenied:
			if status.Code(err) == codes.ResourceExhausted {
				return tooManyStreams(errors.New(render.Printable(status.Convert(err).Message())))
			}
			if _, isStatus := status.FromError(err); isStatus {
				return registryError(err)
			}
			return err
		case !w.away:
			w.away = true
			if err := w.tell(changeAway, nil); err != nil {
				return err
			}
		}
		select {
		case <-time.After(watchRetry):
		case <-ctx.Done():
			return nil
		}
	}
}

// listen reports the changes that a master sends, until next fails with err or a change cannot be printed.
func (w *watch) listen(next nextChange) (printed, err error) {
	missing := maps.Clone(w.known) // known places that this master has not sent yet
	for {
		change, err := next()
		if err != nil {
			return nil, err
		}
		w.begun = true
		if w.away {
			w.away = false
			if err := w.tell(changeBack, nil); err != nil {
				return err, nil
			}
		}
		if change.GetKind() == adminpb.WatchResponse_CURRENT {
			if err := w.dismiss(missing); err != nil {
				return err, nil
			}
			missing = nil
		}
		delete(missing, placeOf(change))
		if !w.learn(change) {
			continue
		}
		if err := w.tell(strings.ToLower(change.GetKind().String()), change); err != nil {
			return err, nil
		}
	}
}

// learn records a change, and reports whether it is new to the reader.
func (w *watch) learn(change *adminpb.WatchResponse) bool {
	at := placeOf(change)
	old, known := w.known[at]
	switch change.GetKind() {
	case adminpb.WatchResponse_ADDED, adminpb.WatchResponse_CHANGED:
		w.known[at] = change.GetEndpoint()
		if known && proto.Equal(old, change.GetEndpoint()) {
			return false
		}
		if known {
			change.Kind = adminpb.WatchResponse_CHANGED
		}
	case adminpb.WatchResponse_REMOVED:
		delete(w.known, at)
	case adminpb.WatchResponse_CURRENT, adminpb.WatchResponse_KIND_UNSPECIFIED:
	}
	return true
}

// dismiss reports the places in missing, which the next master does not have, as removed.
func (w *watch) dismiss(missing map[place]*adminpb.Endpoint) error {
	for _, at := range slices.SortedFunc(maps.Keys(missing), func(a, b place) int {
		// Reverse order: the endpoints of a service before the service.
		return cmp.Or(cmp.Compare(a.service, b.service), cmp.Compare(b.address, a.address),
			cmp.Compare(b.worker, a.worker))
	}) {
		delete(w.known, at)
		gone := &adminpb.WatchResponse{Kind: adminpb.WatchResponse_REMOVED, Service: at.service, Endpoint: missing[at]}
		if err := w.tell(strings.ToLower(gone.GetKind().String()), gone); err != nil {
			return err
		}
	}
	return nil
}

func printChange(c *cli.Context, kind string, change *adminpb.WatchResponse, now time.Time) error {
	if c.Bool(jsonFlag) {
		line := changeJSON{Time: now, Change: kind, Service: change.GetService()}
		if e := change.GetEndpoint(); e != nil {
			line.Endpoint = new(endpointToJSON(e))
		}
		return render.JSONLine(c.App.Writer, line)
	}
	words := []string{now.Format(time.TimeOnly), kind, render.Printable(change.GetService())}
	switch {
	case kind == changeAway:
		words[2] = render.MasterAway
	case kind == changeBack:
		words[2] = "a master answers again; what has changed meanwhile comes next"
	case change.GetKind() == adminpb.WatchResponse_CURRENT:
		return nil
	}
	if e := change.GetEndpoint(); e != nil {
		words = append(words, render.Printable(e.GetAddress()), render.Printable(render.OrDash(e.GetWorker())),
			render.Printable(e.GetSource()))
		if change.GetKind() != adminpb.WatchResponse_REMOVED {
			words = append(words, describe.EndpointState(e))
		}
	}
	_, err := fmt.Fprintln(c.App.Writer, render.OnTerminal(c.App.Writer, strings.Join(words, "  ")))
	return err
}
