package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/master"
)

// attempt is how one attempt of a follower to reach a master goes: it takes a time and ends with an error.
type attempt struct {
	takes time.Duration
	err   error
}

// attempts is a plan for the attempts of a follower: for the time of its first part, each attempt goes as that part
// says, then as the next part says, and so on.
type attempts []struct {
	lasts time.Duration
	attempt
}

// followed follows masters that are there as the attempts say, and then one that answers with errLast.
func (a attempts) followed(t *testing.T) (took time.Duration, notes string, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var told bytes.Buffer
		err = followMasters(t.Context(), &told, status.Error(codes.Unavailable, "it has ended"),
			func(context.Context) (bool, error) {
				at := time.Since(began)
				for _, part := range a {
					if at < part.lasts {
						time.Sleep(part.takes)
						return false, part.err
					}
					at -= part.lasts
				}
				return true, errLast
			})
		took, notes = time.Since(began), told.String()
	})
	return took, notes, err
}

var errLast = errors.New("the last master of the test")

// A follower waits for a master to come and to answer, and says so once, and once more if one does not answer.
func TestFollowersWaitForTheNextMaster(t *testing.T) {
	const said = "hsu-master: " + render.MasterAway + "\n"
	silent := attempt{answerWithin, folders{state: "/s", runtime: "/r", runtimeGiven: true}.silent(answerWithin)}
	held := attempt{startingFor, exit.Hint(exit.ErrHeld, "it may be starting")}
	none := attempt{0, exit.Hint(exit.ErrNoMaster, "start one")}
	ended := attempt{0, status.Error(codes.Unavailable, "the connection is closed")}
	starts := "hsu-master: still waiting: " + exit.ErrHeld.Error() + "\n"
	const hangs = "hsu-master: still waiting: the master at /r/admin.sock does not answer within 10s\n"
	for name, test := range map[string]struct {
		attempts attempts
		notes    string
	}{
		"at once":                  {nil, said},
		"a new program":            {attempts{{time.Minute, silent}}, said},
		"one that hangs":           {attempts{{time.Hour, silent}}, said + hangs},
		"one that starts":          {attempts{{time.Minute, held}}, said},
		"one that starts for long": {attempts{{time.Hour, held}}, said + starts},
		"one that comes late":      {attempts{{time.Hour, none}}, said},
		"one that comes late and ends": {
			attempts{{5 * time.Minute, none}, {time.Minute, held}, {time.Minute, ended}}, said,
		},
		"two with a gap between": {
			attempts{{time.Hour, none}, {time.Minute, silent}, {time.Hour, none}}, said,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var least time.Duration
			for _, part := range test.attempts {
				least += part.lasts
			}
			took, notes, err := test.attempts.followed(t)
			if !errors.Is(err, errLast) || took < least || took > least+2*answerWithin {
				t.Errorf("ended with %v after %v, want that the master after %v is followed", err, took, least)
			}
			if notes != test.notes {
				t.Errorf("told %q, want %q", notes, test.notes)
			}
		})
	}
}

// A follower that waits for a master ends at once when it is interrupted.
func TestFollowersThatWaitAreInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		time.AfterFunc(3*time.Minute, cancel)
		var notes bytes.Buffer
		err := followMasters(ctx, &notes, nil, func(ctx context.Context) (bool, error) {
			limited, _, end := untilAnswer(ctx, folders{}, answerWithin)
			defer end()
			<-limited.Done()
			return false, context.Cause(limited)
		})
		if took := time.Since(began); err != nil || took != 3*time.Minute {
			t.Errorf("ended with %v after %v, want no error at the interruption", err, took)
		}
	})
}

// lateMasters is a listener whose connections get no answer until serve is called.
type lateMasters struct {
	folders folders
	l       *net.UnixListener
	db      string // id of the state folder
}

func newLateMasters(t *testing.T) lateMasters {
	t.Helper()
	dir, db := heldState(t)
	l, err := net.Listen("unix", master.AdminSocket(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return lateMasters{
		folders{state: dir, runtime: dir, runtimeGiven: true}, l.(*net.UnixListener), db.StateDirID().String(),
	}
}

// serve serves masters until the test ends.
func (m lateMasters) serve(t *testing.T, masters adminpb.AdminServer) {
	server := grpc.NewServer()
	adminpb.RegisterAdminServer(server, masters)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(m.l) })
	t.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
}

// The socket of a program that is being replaced accepts connections before the new program answers.
func TestFollowersGoOnWithAProgramThatServesLate(t *testing.T) {
	late := newLateMasters(t)
	logs := &logReader{folders: late.folders, req: &adminpb.LogsRequest{}, within: time.Millisecond}
	_, err := logs.resume(t.Context())
	if !errors.As(err, new(noAnswerError)) {
		t.Errorf("the logs of a silent master: %v", err)
	}
	events := &eventReader{folders: late.folders, req: &adminpb.EventsRequest{}, within: time.Millisecond}
	if _, err = events.resume(t.Context()); !errors.As(err, new(noAnswerError)) {
		t.Errorf("the events of a silent master: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err = liveState(ctx, late.folders); !errors.As(err, new(noAnswerError)) {
		t.Errorf("the state of a silent master: %v", err)
	}

	stopped, stop := context.WithCancel(t.Context())
	stop()
	if _, err = liveState(stopped, late.folders); !errors.As(err, new(noAnswerError)) {
		t.Errorf("the state for a context that has ended: %v", err)
	}

	late.serve(t, &logMasters{
		starting: starting{stateDir: late.db},
		answers: [][]*adminpb.LogsResponse{{
			{Positions: true}, {Texts: []*adminpb.LogText{placed("web-0", "a\n", 2)}},
		}},
	})
	var w, notes bytes.Buffer
	logs.within, logs.positions = 0, true
	logs.out = &logPrinter{w: &w, errs: &notes, prefixes: map[string]string{}}
	begun, err := logs.resume(t.Context())
	if !begun || status.Code(err) != codes.Unavailable || w.String() != "web-0 | a\n" {
		t.Errorf("the logs of a master that has begun to serve: %q, %t, %v", w.String(), begun, err)
	}
}

// quiet is the admin service of an older master, whose workers write nothing.
type quiet struct{ starting }

func (quiet) Logs(_ *adminpb.LogsRequest, stream grpc.ServerStreamingServer[adminpb.LogsResponse]) error {
	<-stream.Context().Done()
	return nil
}

// An older master that says nothing is told apart from a silent one, which would be waited for.
func TestLogsOfAnOlderMasterThatSaysNothing(t *testing.T) {
	late := newLateMasters(t)
	late.serve(t, quiet{starting{stateDir: late.db}})
	r := &logReader{folders: late.folders, req: &adminpb.LogsRequest{}, within: 100 * time.Millisecond}
	var err error
	for range 100 { // this process may be too busy for the time
		if _, err = r.resume(t.Context()); !errors.As(err, new(noAnswerError)) {
			break
		}
	}
	if err == nil || err.Error() != errEnded.Error() {
		t.Errorf("%v, want %v", err, errEnded)
	}
}

// slow is the admin service of a master that takes a time for each of its first answers.
type slow struct {
	starting
	takes time.Duration
}

func (s slow) GetState(ctx context.Context, req *adminpb.GetStateRequest) (*adminpb.GetStateResponse, error) {
	time.Sleep(s.takes)
	return s.starting.GetState(ctx, req)
}

func (s slow) Logs(_ *adminpb.LogsRequest, stream grpc.ServerStreamingServer[adminpb.LogsResponse]) error {
	time.Sleep(s.takes)
	return stream.Send(&adminpb.LogsResponse{Positions: true})
}

// A master that answers each request in time is followed, also if it does not answer all of them in that time.
func TestLogsOfASlowMaster(t *testing.T) {
	late := newLateMasters(t)
	const within = 500 * time.Millisecond
	late.serve(t, slow{starting{stateDir: late.db}, within * 6 / 10})
	r := &logReader{folders: late.folders, req: &adminpb.LogsRequest{}, positions: true, within: within}
	r.out = &logPrinter{w: io.Discard, errs: io.Discard, prefixes: map[string]string{}}
	var begun bool
	var err error
	for range 10 { // this process may be too busy for the time
		if begun, err = r.resume(t.Context()); begun {
			break
		}
	}
	if !begun || err != nil {
		t.Errorf("begun: %t, %v, want that it is followed", begun, err)
	}
}

// recovering is the admin service of masters that end before they know the workers of an earlier one.
type recovering struct {
	starting
	asked *[]*adminpb.EventsRequest
}

func (r recovering) Events(
	req *adminpb.EventsRequest, stream grpc.ServerStreamingServer[adminpb.EventsResponse],
) error {
	*r.asked = append(*r.asked, req)
	if err := stream.Send(&adminpb.EventsResponse{Last: 7}); err != nil {
		return err
	}
	return status.Error(codes.Unavailable, "the master has ended")
}

// A master that has sent no event yet has answered, and the next one is asked to go on where that one would have begun.
func TestEventsOfAMasterThatRecovers(t *testing.T) {
	late := newLateMasters(t)
	var asked []*adminpb.EventsRequest
	late.serve(t, recovering{starting{stateDir: late.db}, &asked})
	var out, notes bytes.Buffer
	r := &eventReader{folders: late.folders, out: &out, notes: &notes}
	r.req = &adminpb.EventsRequest{Names: []string{"web-0"}, Follow: true, Last: new(uint32(followedEvents))}
	err := r.receive(t.Context())
	if status.Code(err) != codes.Unavailable || !r.begun || out.Len()+notes.Len() > 0 {
		t.Errorf("begun: %t, %v, printed %q and %q", r.begun, err, out.String(), notes.String())
	}
	if begun, err := r.resume(t.Context()); status.Code(err) != codes.Unavailable || !begun {
		t.Errorf("the next master: begun: %t, %v", begun, err)
	}
	if len(asked) != 2 || asked[1].GetAfter() != 7 || asked[1].Last != nil {
		t.Errorf("the masters are asked for %v", asked)
	}
}
