package main

import (
	"bytes"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/master"
)

// logMasters is the admin service of one master after another: each call of Logs is answered by the next one.
type logMasters struct {
	starting
	answers [][]*adminpb.LogsResponse
	asked   []*adminpb.LogsRequest
}

func (m *logMasters) Logs(req *adminpb.LogsRequest, stream grpc.ServerStreamingServer[adminpb.LogsResponse]) error {
	n := len(m.asked)
	if m.asked = append(m.asked, req); n == len(m.answers) {
		return status.Error(codes.NotFound, "no such worker: it is the last master of the test")
	}
	for _, resp := range m.answers[n] {
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
	return status.Error(codes.Unavailable, "the master has ended")
}

// followed follows the logs of these masters.
func followed(t *testing.T, answers ...[]*adminpb.LogsResponse) (
	out, errs string, asked []*adminpb.LogsRequest, err error,
) {
	t.Helper()
	dir, db := heldState(t)
	l, err := net.Listen("unix", master.AdminSocket(dir))
	if err != nil {
		t.Fatal(err)
	}
	masters := &logMasters{starting: starting{stateDir: db.StateDirID().String()}, answers: answers}
	server := grpc.NewServer()
	adminpb.RegisterAdminServer(server, masters)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l)
	}()
	var w, notes bytes.Buffer
	r := logReader{
		folders: folders{state: dir, runtime: dir, runtimeGiven: true},
		req:     &adminpb.LogsRequest{Names: []string{"web"}, Follow: true, Lines: new(int64(10))},
		out:     &logPrinter{w: &w, errs: &notes, prefixes: map[string]string{}},
	}
	err = r.run(t.Context())
	server.Stop()
	<-served
	return w.String(), notes.String(), masters.asked, err
}

func placed(worker, text string, offset int64) *adminpb.LogText {
	return &adminpb.LogText{
		Worker: worker, Text: []byte(text), Position: &adminpb.LogPosition{File: 1, Offset: offset},
	}
}

// The next master is asked for what comes behind the last positions, and a text whose position did not come is printed
// when that master sends it.
func TestLogsGoOnOverMasters(t *testing.T) {
	part := logText("web-0", "lo")
	part.Part = true
	rest := placed("web-0", "st\nmore\n", 11)
	out, errs, asked, err := followed(t,
		[]*adminpb.LogsResponse{
			{Positions: true},
			{Texts: []*adminpb.LogText{placed("web-0", "a\n", 2), placed("web-1", "b\n", 2)}},
			{Texts: []*adminpb.LogText{placed("web-1", "c\n", 4), part}},
		},
		[]*adminpb.LogsResponse{
			{Positions: true}, {Texts: []*adminpb.LogText{part}}, {Texts: []*adminpb.LogText{rest}},
		},
	)
	if want := "web-0 | a\nweb-1 | b\nweb-1 | c\nweb-0 | lost\nweb-0 | more\n"; out != want {
		t.Errorf("printed %q, want %q", out, want)
	}
	if want := strings.Repeat("hsu-master: "+render.MasterAway+"\n", 2); errs != want {
		t.Errorf("told %q, want %q", errs, want)
	}
	if exit.Code(err) != 1 || err == nil || len(asked) != 3 {
		t.Fatalf("%v, %d masters were asked, want 3 and that the last one does not know the worker", err, len(asked))
	}
	if first := asked[0]; !first.GetPositions() || first.GetLines() != 10 || first.GetSince() != nil {
		t.Errorf("the first master is asked for %v", first)
	}
	for i, want := range []map[string]int64{{"web-0": 2, "web-1": 4}, {"web-0": 11, "web-1": 4}} {
		req := asked[i+1]
		if len(req.GetAfter()) != 2 || req.Lines != nil || req.GetSince() == nil {
			t.Errorf("the next master is asked for %v", req)
		}
		for worker, offset := range want {
			if at := req.GetAfter()[worker].GetOffset(); at != offset {
				t.Errorf("master %d is asked for %s behind %d, want %d", i+2, worker, at, offset)
			}
		}
	}
}

// With a master that knows no positions, the command ends as it always did, and prints nothing twice.
func TestLogsOfAnOlderMaster(t *testing.T) {
	older := []*adminpb.LogsResponse{{Texts: []*adminpb.LogText{logText("web-0", "a\n")}}}
	newer := []*adminpb.LogsResponse{{Positions: true}, {Texts: []*adminpb.LogText{placed("web-0", "a\n", 2)}}}
	for name, masters := range map[string][][]*adminpb.LogsResponse{
		"at first": {older}, "as the next one": {newer, older},
	} {
		t.Run(name, func(t *testing.T) {
			out, _, asked, err := followed(t, masters...)
			if out != "web-0 | a\n" || err == nil || err.Error() != errEnded.Error() || len(asked) != len(masters) {
				t.Errorf("%q, %v, %d masters were asked", out, err, len(asked))
			}
		})
	}
}
