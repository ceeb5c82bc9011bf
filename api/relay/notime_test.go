package relay

import (
	"testing"

	"github.com/core-tools/hsu-master/api/relay/protocol"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// A call that has no time left ends, whether or not there is an endpoint for it, and no endpoint sees it.
func TestCallWithoutTimeLeft(t *testing.T) {
	waits, ready := services.New(services.Options{}), services.New(services.Options{})
	b := newRawBackend(t)
	waits.AddIdle(b.endpoint, serviceName)
	ready.Add(b.endpoint, serviceName)
	for name, registry := range map[string]*services.Registry{
		"no endpoint is ready": waits, "an endpoint is ready": ready,
	} {
		_, addr := startRelay(t, Options{Registry: registry}, nil...)
		client := rawClient(t, addr)
		id := uint32(1)
		for _, timeout := range []string{"0n", "0S", "00000000H", "1n"} {
			client.call(id, true, "grpc-timeout", timeout)
			if code, message := client.status(id); code != protocol.CodeDeadlineExceeded {
				t.Errorf("%s: grpc-timeout %s: status %d %q", name, timeout, code, message)
			}
			id += 2
		}
		if registry == ready {
			client.call(id, true, "grpc-timeout", "99999999H")
			if f := next(b.accept(), anyHeaders); f.StreamID != 1 || field(f, "grpc-timeout") != "99999999H" {
				t.Errorf("the endpoint saw %v on stream %d", f.Fields, f.StreamID)
			}
		}
	}
}
