package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/describe"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor"
)

func whyCommand() *cli.Command {
	cmd := leafOf("why", "explain why a worker is in its state, and what happens next", "ID|UNIT", false, why,
		jsonOutput())
	cmd.Description = `Without an argument, it explains each worker that is not well. It reads the
state files if no master runs.`
	return cmd
}

// whyJSON is what "why --json" prints.
type (
	whyJSON struct {
		Source  string            `json:"source"`
		Well    bool              `json:"well"` // whether all that was asked for is as wanted
		Workers []explanationJSON `json:"workers"`
	}
	explanationJSON struct {
		ID     string     `json:"id"`
		Unit   string     `json:"unit"`
		Status string     `json:"status"`
		Since  *time.Time `json:"since,omitempty"`
		Well   bool       `json:"well"`
		Why    string     `json:"why"`
		Next   string     `json:"next"`
		Do     string     `json:"do,omitempty"`
	}
)

func why(c *cli.Context, name string) error {
	f, err := foldersOf(c)
	if err != nil {
		return err
	}
	state, err := readState(c.Context, f)
	if err != nil {
		return err
	}
	var names []string
	if name != "" {
		names = []string{name}
	} else {
		for _, w := range state.GetWorkers() {
			if !describe.Well(w) {
				names = append(names, w.GetId())
			}
		}
	}
	resp := &adminpb.InspectResponse{}
	if len(names) > 0 {
		if resp, err = inspect(c.Context, f, state, &adminpb.InspectRequest{Names: names}); err != nil {
			return err
		}
	}
	live, now := state.GetSource() == api.SourceLive, time.Now()
	switch {
	case c.Bool(jsonFlag):
		return render.JSON(c.App.Writer, whyToJSON(state.GetSource(), resp.GetInspections(), live, now))
	case name == "":
		describe.Unwell(c.App.Writer, state, resp.GetInspections(), now)
	default:
		describe.Offline(c.App.Writer, state)
		describe.Why(c.App.Writer, name, resp, live, now)
	}
	return nil
}

// inspect returns the inspections of workers from the master whose state was read, or from the state files.
func inspect(
	ctx context.Context, f folders, state *adminpb.State, req *adminpb.InspectRequest,
) (*adminpb.InspectResponse, error) {
	if state.GetSource() == api.SourceLive {
		return liveInspect(ctx, f, req)
	}
	snap, err := store.ReadSnapshot(f.state)
	if err != nil {
		return nil, offline(f, err)
	}
	entries, err := store.ReadEvents(f.state)
	if err != nil {
		return nil, offline(f, err)
	}
	resp, err := api.OfflineInspect(snap, entries, f.state, req.GetNames())
	if unknown, ok := errors.AsType[*supervisor.UnknownError](err); ok {
		return nil, unknownName(unknown.Error())
	}
	return resp, err
}

func liveInspect(ctx context.Context, f folders, req *adminpb.InspectRequest) (*adminpb.InspectResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	conn, err := dialAdmin(ctx, f)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	resp, err := adminpb.NewAdminClient(conn).Inspect(ctx, req)
	said := render.Printable(status.Convert(err).Message())
	switch status.Code(err) {
	case codes.OK:
		return resp, nil
	case codes.NotFound:
		return nil, unknownName(said)
	case codes.Unimplemented:
		return nil, errOlder
	default:
		return nil, fmt.Errorf("ask the master: %s", said)
	}
}

func unknownName(said string) error {
	return exit.Hint(errors.New(render.Printable(said)), `"hsu-master worker list" lists the workers`)
}

func whyToJSON(source string, list []*adminpb.Inspection, live bool, now time.Time) whyJSON {
	shown := whyJSON{Source: source, Well: true, Workers: make([]explanationJSON, 0, len(list))}
	for _, in := range list {
		w, e := in.GetWorker(), describe.Explain(in, live, now)
		shown.Well = shown.Well && describe.Well(w)
		shown.Workers = append(shown.Workers, explanationJSON{
			ID: w.GetId(), Unit: w.GetUnit(), Status: w.GetStatus(), Since: render.LocalTime(in.GetSince()),
			Well: describe.Well(w),
			Why:  e.Why, Next: e.Next, Do: e.Do,
		})
	}
	return shown
}
