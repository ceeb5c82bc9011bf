package api

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	protobuf "google.golang.org/protobuf/proto"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// method is a method of the admin socket. call invokes it with the request that decode fills in, and passes its
// responses to send.
type method struct {
	name   string
	stream bool // of responses
	call   func(ctx context.Context, decode func(any) error, send func(any) error) error
}

// methods returns all methods of a service, so that methods added later are fuzzed too.
func methods(desc grpc.ServiceDesc, srv any) (all []method) {
	for _, m := range desc.Methods {
		all = append(all, method{m.MethodName, false, func(ctx context.Context, decode, send func(any) error) error {
			answer, err := m.Handler(srv, ctx, decode, nil)
			if err != nil {
				return err
			}
			return send(answer)
		}})
	}
	for _, s := range desc.Streams {
		all = append(all, method{s.StreamName, true, func(ctx context.Context, decode, send func(any) error) error {
			return s.Handler(srv, &oneRequest{ctx: ctx, decode: decode, send: send})
		}})
	}
	return all
}

// oneRequest is a server stream that receives one request.
type oneRequest struct {
	ctx    context.Context //nolint:containedctx // the Context method returns it
	decode func(any) error
	send   func(any) error
	done   bool
}

func (s *oneRequest) Context() context.Context   { return s.ctx }
func (*oneRequest) SetHeader(metadata.MD) error  { return nil }
func (*oneRequest) SendHeader(metadata.MD) error { return nil }
func (*oneRequest) SetTrailer(metadata.MD)       {}
func (s *oneRequest) SendMsg(m any) error        { return s.send(m) }
func (s *oneRequest) RecvMsg(m any) error {
	if s.done {
		return io.EOF
	}
	s.done = true
	return s.decode(m)
}

// FuzzAdminRequest sends arbitrary bytes to each method of the admin socket, with a real store. Each call must
// return a response that can be marshaled or an error with a reason, and only processed requests may be counted.
func FuzzAdminRequest(f *testing.F) {
	for i := range 8 {
		f.Add(byte(i), []byte{})
		f.Add(byte(i), []byte("\x0a\x05hello\x10\x01"))
	}
	f.Add(byte(0), []byte("\xff"))
	f.Add(byte(3), []byte("\x0a\x02\xff\xfe"))
	db, s := standalone(f)
	admin := &Admin{Store: db, Supervisor: s, Listen: "127.0.0.1:1", Version: "v", Started: time.Now()}
	all := methods(adminpb.Admin_ServiceDesc, admin)
	all = append(all, methods(proto.MyBusinessService_ServiceDesc, NewBusiness(s, db))...)
	caller := peer.NewContext(f.Context(), &peer.Peer{AuthInfo: peerIdentity{uid: uint32(os.Geteuid())}})
	f.Fuzz(func(t *testing.T, which byte, request []byte) {
		m := all[int(which)%len(all)]
		ctx := caller
		if m.stream { // a client that follows goes away
			bounded, cancel := context.WithTimeout(caller, 20*time.Millisecond)
			defer cancel()
			ctx = bounded
		}
		before, id := db.Processed(), db.MasterID()
		size := 0
		err := m.call(ctx, func(into any) error {
			if err := protobuf.Unmarshal(request, into.(protobuf.Message)); err != nil {
				return status.Error(codes.InvalidArgument, err.Error())
			}
			return nil
		}, func(answer any) error {
			b, err := protobuf.Marshal(answer.(protobuf.Message))
			if size += len(b); err != nil {
				t.Errorf("%s answers what cannot be sent: %v", m.name, err)
			}
			return nil
		})
		switch status.Code(err) {
		case codes.OK:
		case codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition, codes.Unavailable, codes.Unimplemented,
			codes.OutOfRange:
			if status.Convert(err).Message() == "" {
				t.Errorf("%s gives no reason", m.name)
			}
		case codes.Canceled, codes.DeadlineExceeded:
			if !m.stream && m.name != "Scale" { // which a timeout in the request ends
				t.Errorf("%s: %v", m.name, err)
			}
		default:
			t.Errorf("%s: %v", m.name, err)
		}
		if size > 64<<20 {
			t.Errorf("%s answers with %d bytes", m.name, size)
		}
		counted := int64(0)
		if m.name == "ProcessData" && err == nil {
			counted = 1
		}
		if got := db.Processed() - before; got != counted {
			t.Errorf("%s counts %d, %v", m.name, got, err)
		}
		if db.MasterID() != id || s.Status() != supervisor.Running {
			t.Errorf("after %s: master %s is %s", m.name, db.MasterID(), s.Status())
		}
	})
}

// FuzzStateMessage builds a state from strings as they come from workers and damaged files. The state must still
// be marshaled, and all other fields must be kept.
func FuzzStateMessage(f *testing.F) {
	f.Add("worker-0", "no answer: \xff\xfe", "workers/\xff", "damaged \x80", int64(0), int32(7), true)
	f.Add("", "", "", "", int64(1<<62), int32(-1), false)
	f.Fuzz(func(t *testing.T, id, reason, key, bad string, at int64, number int32, ended bool) {
		when := time.Unix(at%(1<<37), at).UTC() // within what a record can hold
		w := records.Worker{
			ID: sendable(id), Status: records.StatusRunning, Reason: reason, // as the store validates them
			Instance: &records.Instance{Process: identity.Process{PID: 4711}, Port: int(uint16(number)), Started: when},
		}
		if ended {
			w.LastExit = &identity.Exit{
				Code: int(number), Signal: syscall.Signal(max(0, int(number))), Source: identity.ExitWait, At: when,
			}
		}
		state := stateOf(records.Snapshot{Processed: 9, Bad: map[string]error{key: errors.New(bad)}},
			[]worker.Info{{Worker: w}})
		b, err := protobuf.Marshal(state)
		if err != nil {
			t.Fatal(err)
		}
		var got adminpb.State
		if err := protobuf.Unmarshal(b, &got); err != nil || !protobuf.Equal(state, &got) {
			t.Errorf("sent %v, got %v, %v", state, &got, err)
		}
		if len(got.GetWorkers()) != 1 || len(got.GetBadRecords()) != 1 || got.GetProcessedCount() != 9 ||
			!slices.ContainsFunc(got.GetServices(), func(s *adminpb.Service) bool {
				return len(s.GetEndpoints()) == 1
			}) {
			t.Errorf("%v", &got)
		}
	})
}
