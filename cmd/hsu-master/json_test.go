package main

import (
	"bytes"
	"encoding/json"
	"net"
	"runtime"
	"sync"
	"testing"

	"github.com/core-tools/hsu-core/go/control"
	"github.com/core-tools/hsu-core/go/domain"
	"github.com/core-tools/hsu-core/go/logging"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
)

// reloading is the admin service of a master whose reload ends with end after the plan; nil is a success.
type reloading struct {
	starting
	end    error
	noFile bool // there is nothing to wait for: it never says that the reload has begun
}

func (r reloading) Reload(
	req *adminpb.ReloadRequest, stream grpc.ServerStreamingServer[adminpb.ReloadResponse],
) error {
	plan := &adminpb.ReloadResponse{Changes: []*adminpb.UnitChange{{Unit: "web", Action: "replace"}}}
	if err := stream.Send(plan); err != nil || req.GetDryRun() {
		return err
	}
	if req.GetNoWait() && !r.noFile {
		return stream.Send(&adminpb.ReloadResponse{Begun: true})
	}
	return r.end
}

// The JSON of a reload says whether it was waited for to its end.
func TestReloadSaysWhetherItIsDone(t *testing.T) {
	failed := status.Error(codes.Aborted, "web-0 is not ready: exited with code 3")
	for name, test := range map[string]struct {
		end    error
		noFile bool
		flag   string
		code   int
		done   bool
	}{
		"done":    {done: true},
		"dry run": {flag: "--dry-run"},
		"no wait": {flag: "--no-wait"},
		"failed":  {end: failed, code: exit.Failed},

		"without a file":          {noFile: true, done: true},
		"no wait, without a file": {noFile: true, flag: "--no-wait"},
	} {
		t.Run(name, func(t *testing.T) {
			late := newLateMasters(t)
			late.serve(t, reloading{starting{stateDir: late.db}, test.end, test.noFile})
			dir := late.folders.state
			args := []string{"reload", "--json", "--state-dir", dir, "--runtime-dir", dir}
			if test.flag != "" {
				args = append(args, test.flag)
			}
			var out, errs bytes.Buffer
			code := run(t.Context(), args, &out, &errs)
			got := reloadJSON{Done: !test.done}
			err := json.Unmarshal(out.Bytes(), &got)
			if code != test.code || err != nil || got.Done != test.done || len(got.Changes) != 1 {
				t.Errorf("exit code %d, %v, %s%s", code, err, out.String(), errs.String())
			}
		})
	}
}

// A ping in JSON has the address that was given and the time of the answer in seconds.
func TestPingAndVersionInJSON(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, log := grpc.NewServer(), logging.NewLogger("", logging.LogFuncs{})
	control.RegisterGRPCServerHandler(server, domain.NewDefaultHandler(log), log)
	var serving sync.WaitGroup
	defer serving.Wait()
	defer server.Stop()
	serving.Go(func() { _ = server.Serve(l) })
	var out, errs bytes.Buffer
	code := run(t.Context(), []string{"ping", "--json", "--addr", l.Addr().String()}, &out, &errs)
	var ping pingJSON
	if err := json.Unmarshal(out.Bytes(), &ping); code != exit.Done || err != nil ||
		ping.Address != l.Addr().String() || ping.AnsweredIn <= 0 || ping.AnsweredIn > 10 {
		t.Errorf("ping: exit code %d, %v, %s%s", code, err, out.String(), errs.String())
	}

	out.Reset()
	code = run(t.Context(), []string{"version", "--json"}, &out, &errs)
	got, want := versionJSON{}, versionJSON{version(), runtime.GOOS, runtime.GOARCH, runtime.Version()}
	if err := json.Unmarshal(out.Bytes(), &got); code != exit.Done || err != nil || got != want {
		t.Errorf("version: exit code %d, %v, %s%s", code, err, out.String(), errs.String())
	}
}
