package probe

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// endpoint answers a Ping and a health check as a test specifies.
type endpoint struct {
	grpc.ClientConnInterface
	ping, health error
	asked        []string
}

func (e *endpoint) Ping(context.Context) error {
	e.asked = append(e.asked, "ping")
	return e.ping
}

// Invoke is a health check. An answer without an error reports the health UNKNOWN.
func (e *endpoint) Invoke(context.Context, string, any, any, ...grpc.CallOption) error {
	e.asked = append(e.asked, "grpc")
	return e.health
}

func TestLadderGoesOnOnlyFromAMethodThatIsNotImplemented(t *testing.T) {
	unimplemented := fmt.Errorf("ping: %w", status.Error(codes.Unimplemented, "unknown service"))
	refused := status.Error(codes.Unavailable, "connection refused")
	for name, test := range map[string]struct {
		ping, health error
		asked        string
		method       Method
		ok           bool
	}{
		"ping answers":              {nil, nil, "[ping]", Ping, true},
		"ping fails":                {refused, nil, "[ping]", Ping, false},
		"ping fails without status": {errors.New("broken"), nil, "[ping]", Ping, false},
		"health knows nothing": {
			unimplemented, status.Error(codes.NotFound, "no service"), "[ping grpc]", GRPC, true,
		},
		"health fails":                {unimplemented, refused, "[ping grpc]", GRPC, false},
		"health is not SERVING":       {unimplemented, nil, "[ping grpc]", GRPC, false},
		"neither, and nobody listens": {unimplemented, unimplemented, "[ping grpc]", TCP, false},
	} {
		t.Run(name, func(t *testing.T) {
			e := &endpoint{ping: test.ping, health: test.health}
			l := NewLadder("127.0.0.1:0", e, e)
			if err := l.Ping(t.Context()); (err == nil) != test.ok {
				t.Errorf("Ping: %v", err)
			}
			if got := fmt.Sprint(e.asked); got != test.asked || l.Method() != test.method {
				t.Errorf("asked %s and keeps to %s, want %s and %s", got, l.Method(), test.asked, test.method)
			}
		})
	}
}

// Another program may have taken the endpoint's place.
func TestLadderBeginsAnewWhenItsMethodIsNotImplementedAnyMore(t *testing.T) {
	unimplemented := status.Error(codes.Unimplemented, "unknown service")
	e := &endpoint{ping: unimplemented, health: status.Error(codes.NotFound, "no service")}
	l := NewLadder("127.0.0.1:0", e, e)
	if err := l.Ping(t.Context()); err != nil || l.Method() != GRPC {
		t.Fatalf("Ping: %v, by %s", err, l.Method())
	}
	e.ping, e.health = nil, unimplemented
	if err := l.Ping(t.Context()); err != nil || l.Method() != Ping {
		t.Errorf("Ping: %v, by %s, want it by ping", err, l.Method())
	}
}
