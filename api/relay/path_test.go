package relay

import (
	"testing"

	"golang.org/x/net/http2"
)

func TestSplitPath(t *testing.T) {
	for _, c := range []struct {
		path, service, method string
		ok                    bool
	}{
		{"/pkg.Service/Method", "pkg.Service", "Method", true},
		{"/Service/_m1", "Service", "_m1", true},
		{path: "/pkg.Service/Method?"},
		{path: "/pkg.Service/Method?x=1"},
		{path: "/pkg.Service/Method#a"},
		{path: "/pkg.Service/Method;a=1"},
		{path: "/pkg.Service/Meth%6Fd"},
		{path: "/pkg%2EService/Method"},
		{path: "/pkg.Service%2FMethod"},
		{path: "/pkg.Service/Method/"},
		{path: "/pkg.Service//Method"},
		{path: "//pkg.Service/Method"},
		{path: "/./pkg.Service/Method"},
		{path: "/pkg.Service/../pkg.Service/Method"},
		{path: "/pkg.Service/."},
		{path: "/pkg..Service/Method"},
		{path: "/.Service/Method"},
		{path: "/pkg.Service/Method "},
		{path: "/pkg.Service\\Method"},
		{path: "/pkg.Service/Meth\u00f6d"},
		{path: "http://host/pkg.Service/Method"},
		{path: "pkg.Service/Method"},
		{path: "/pkg.Service/"},
		{path: "/pkg.Service"},
		{path: "//Method"},
		{path: "/"},
		{path: ""},
		{path: "*"},
	} {
		service, method, ok := splitPath(c.path)
		if ok != c.ok || ok && (service != c.service || method != c.method) {
			t.Errorf("splitPath(%q) = %q, %q, %t", c.path, service, method, ok)
		}
	}
}

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
		for _, more := range [][]string{nil, {RequestID, "id"}} {
			client.headers(id, true, append([]string{
				":method", "POST", ":scheme", "http", ":path", "/" + serviceName + "/" + method, ":authority", "test",
				"content-type", "application/grpc", "te", "trailers",
			}, more...)...)
			client.wantStatus(id, codeUnimplemented)
			id += 2
		}
	}
	client.call(id, true)
	if f := next(p, anyHeaders); field(f, ":path") != "/"+serviceName+"/UnaryCall" || f.StreamID != 3 {
		t.Errorf("the endpoint saw %v on stream %d", f.Fields, f.StreamID)
	}
	client.must(client.WriteRSTStream(id, http2.ErrCodeCancel))
}
