package relay

import (
	"testing"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/protocol"
)

// A call whose path a server could take for the path of a counted method does not reach an endpoint.
func TestOtherSpellingsOfACountedMethod(t *testing.T) {
	b := newRawBackend(t)
	_, addr := startRelay(t, counting(newCounter()), b.endpoint)
	client := rawClient(t, addr)
	client.call(1, true)
	p := b.accept()
	next(p, anyHeaders)
	id := uint32(3)
	for _, method := range []string{
		"UnaryCall?", "UnaryCall?x=1", "UnaryCall#a", "Unary%43all", "UnaryCall/", "unarycall", "UNARYCALL",
	} {
		for _, more := range [][]string{nil, {protocol.RequestID, "id"}} {
			client.headers(id, true, append([]string{
				":method", "POST", ":scheme", "http", ":path", "/" + serviceName + "/" + method, ":authority", "test",
				"content-type", "application/grpc", "te", "trailers",
			}, more...)...)
			client.wantStatus(id, protocol.CodeUnimplemented)
			id += 2
		}
	}
	client.call(id, true)
	if f := next(p, anyHeaders); field(f, ":path") != "/"+serviceName+"/UnaryCall" || f.StreamID != 3 {
		t.Errorf("the endpoint saw %v on stream %d", f.Fields, f.StreamID)
	}
	client.must(client.WriteRSTStream(id, http2.ErrCodeCancel))
}
