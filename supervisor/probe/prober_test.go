package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

func TestBrief(t *testing.T) {
	dial := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for want, err := range map[string]error{
		"connection refused":       dial,
		"Unavailable: gone":        fmt.Errorf("ping: %w", status.Error(codes.Unavailable, "gone")),
		"its health is UNKNOWN":    errors.New("its health is UNKNOWN"),
		"DeadlineExceeded: \uFFFD": status.Error(codes.DeadlineExceeded, "\xff"),
		context.Canceled.Error():   context.Canceled,
		"no such host": status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: `+
			`dial tcp: lookup db on 10.0.0.1:53: no such host"`),
		strings.Repeat("x", 200): errors.New(strings.Repeat("x", 10_000)),
	} {
		if got := Brief(err); got != want {
			t.Errorf("Brief(%v) = %q, want %q", err, got, want)
		}
	}
}

// ask makes one check and returns its answer as it is shown: "" if it passed.
func ask(t *testing.T, s Spec, x Target) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), s.WithDefaults().Timeout)
	defer cancel()
	p := New(s, x)
	began := time.Now()
	err := p.Ping(ctx)
	if took := time.Since(began); ctx.Err() != nil && took > s.WithDefaults().Timeout+10*time.Second {
		t.Errorf("%s took %s", p, took)
	}
	if err == nil {
		return ""
	}
	return p.Describe() + ": " + Brief(err)
}

const aMoment = 300 * time.Millisecond

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestGRPC(t *testing.T) {
	state := health.NewServer()
	state.SetServingStatus("acme.Well", healthpb.HealthCheckResponse_SERVING)
	state.SetServingStatus("acme.Ill", healthpb.HealthCheckResponse_NOT_SERVING)
	with := serveGRPC(t, func(s *grpc.Server) { healthpb.RegisterHealthServer(s, state) })
	without := serveGRPC(t, func(*grpc.Server) {})
	conn, err := grpc.NewClient("passthrough:///"+with, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	silent := listen(t).Addr().String()
	for name, test := range map[string]struct {
		spec Spec
		want string
	}{
		"server":        {Spec{}, ""},
		"service":       {Spec{Service: "acme.Well"}, ""},
		"not serving":   {Spec{Service: "acme.Ill"}, "grpc.health.v1 acme.Ill: its health is NOT_SERVING"},
		"unknown":       {Spec{Service: "acme.None"}, "grpc.health.v1 acme.None: NotFound: "},
		"address":       {Spec{Service: "acme.Well", Address: with}, ""},
		"ill there":     {Spec{Service: "acme.Ill", Address: with}, " at " + with + ": its health is NOT_SERVING"},
		"unimplemented": {Spec{Address: without}, "grpc.health.v1 at " + without + ": Unimplemented: "},
		"silent":        {Spec{Address: silent}, "DeadlineExceeded"},
	} {
		test.spec.Type, test.spec.Timeout = TypeGRPC, time.Minute
		if name == "silent" {
			test.spec.Timeout = aMoment
		}
		got := ask(t, test.spec, Target{Conn: conn})
		if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
	if got := New(Spec{Type: TypeGRPC, Service: "acme.Well"}, Target{}).String(); got != "grpc acme.Well" {
		t.Errorf("the check is shown as %q", got)
	}
}

func serveGRPC(t *testing.T, register func(*grpc.Server)) (address string) {
	t.Helper()
	l, s := listen(t), grpc.NewServer()
	register(s)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func TestPingAloneIsNoLadder(t *testing.T) {
	e := &endpoint{health: status.Error(codes.Unimplemented, "unknown service")}
	p := New(Spec{Type: TypePing}, Target{Conn: e})
	if err := p.Ping(t.Context()); status.Code(err) != codes.Unimplemented || fmt.Sprint(e.asked) != "[grpc]" {
		t.Errorf("Ping: %v, asked %q, want one call and its error", err, e.asked)
	}
}

func TestUnusableCheckAnswersWithItsFault(t *testing.T) {
	p := Unusable(Spec{Type: TypeHTTP}, errors.New("broken"))
	if err := p.Ping(t.Context()); err == nil || err.Error() != "broken" || p.String() != "http" {
		t.Errorf("%s: %v", p, err)
	}
}

// The default kind of a unit speaks gRPC, so a web server with that kind gets this answer.
func TestWebServerIsNoGRPCServer(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	address := server.Listener.Addr().String()
	got := ask(t, Spec{Type: TypeGRPC, Address: address, Policy: Policy{Timeout: time.Minute}}, Target{})
	if !strings.HasSuffix(got, ": its port does not speak gRPC: give the unit another kind or health.type") {
		t.Errorf("%q", got)
	}
}
