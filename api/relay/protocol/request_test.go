package protocol

import (
	"testing"
	"time"

	"github.com/core-tools/hsu-master/api/relay/headers"
)

// list returns a header list of pairs of names and values.
func list(pairs ...string) *headers.List {
	var l headers.List
	for i := 0; i < len(pairs); i += 2 {
		l.Add(pairs[i], pairs[i+1])
	}
	return &l
}

// names returns the names of the fields in a list, in order.
func names(l *headers.List) (names string) {
	for f := range l.All {
		names += f.Name() + " "
	}
	return names
}

func TestReadRequest(t *testing.T) {
	valid := []string{":method", "POST", ":scheme", "http", ":path", "/s/m", ":authority", "a"}
	var out headers.List
	r := ReadRequest(list(append(valid, "grpc-timeout", "5S", "content-type", "application/grpc", "traceparent", "t",
		RequestID, "7", Client, "forged", "content-length", "12", Via, "2.0 other")...), &out, "own")
	if r.Malformed || r.Path != "/s/m" || r.Timeout != 5*time.Second || !r.Timed || !r.Idempotent || r.ID != "7" ||
		r.Length != 12 || r.Trace != "t" || r.Returned || r.contentType != "application/grpc" {
		t.Errorf("read: %+v", r)
	}
	want := ":method :scheme :path :authority grpc-timeout content-type traceparent hsu-request-id content-length via "
	if got := names(&out); got != want {
		t.Errorf("passed on: %s, want all but the client's name for itself", got)
	}
	if r := ReadRequest(list(append(valid, Via, "2.0 own")...), &out, "own"); !r.Returned || r.Length != -1 {
		t.Errorf("a call that was here before: %+v", r)
	}
	for name, more := range map[string][]string{
		"a pseudo-header after a field": {"a", "b", ":path", "/"},
		"a second path":                 {":path", "/s/m"},
		"an unknown pseudo-header":      {":status", "200"},
		"a name in upper case":          {"A", "b"},
		"a field of HTTP/1":             {"connection", "close"},
		"te that is not trailers":       {"te", "gzip"},
		"two lengths":                   {"content-length", "1", "content-length", "1"},
		"another host":                  {"host", "b"},
	} {
		if r := ReadRequest(list(append(valid, more...)...), &out, "own"); !r.Malformed {
			t.Errorf("%s is accepted", name)
		}
	}
	if r := ReadRequest(list(valid[2:]...), &out, "own"); !r.Malformed {
		t.Error("a request without a method is accepted")
	}
}

func TestRefusal(t *testing.T) {
	pseudo := []string{":method", "POST", ":scheme", "http", ":path", "/s/m"}
	valid := append(pseudo[:6:6], ":authority", "a", "content-type", "application/grpc")
	for name, c := range map[string]struct {
		l      *headers.List
		status string // "" if the request is valid
		code   uint32
	}{
		"valid":             {list(valid...), "", 0},
		"with a timeout":    {list(append(valid, "grpc-timeout", "1S")...), "", 0},
		"with a host":       {list(append(pseudo, "host", "a", "content-type", "application/grpc+proto")...), "", 0},
		"two authorities":   {list(append(valid[:8:8], ":authority", "a")...), "400", CodeInternal},
		"no authority":      {list(append(pseudo, "content-type", "application/grpc")...), "400", CodeInternal},
		"no content type":   {list(valid[:8]...), "415", CodeInvalidArgument},
		"another type":      {list(append(valid[:8:8], "content-type", "text/plain")...), "415", CodeInvalidArgument},
		"a bad timeout":     {list(append(valid, "grpc-timeout", "1")...), "400", CodeInternal},
		"two timeouts":      {list(append(valid, "grpc-timeout", "1S", "grpc-timeout", "1S")...), "400", CodeInternal},
		"not a POST method": {list(append([]string{":method", "GET"}, valid[2:]...)...), "405", CodeInternal},
	} {
		var out headers.List
		h := ReadRequest(c.l, &out, "own")
		if r, refused := h.Refusal(); h.Malformed || refused != (c.status != "") ||
			r.HTTPStatus != c.status || r.Code != c.code || refused != (r.Message != "") {
			t.Errorf("%s: %+v, %t; malformed: %t", name, r, refused, h.Malformed)
		}
	}
}

func TestReadResponse(t *testing.T) {
	var out headers.List
	r := ReadResponse(list(":status", "200", "content-type", "application/grpc+proto",
		"te", "trailers", "x", "y"), &out)
	if r.Fault != "" || r.Status != 200 || r.Statuses != 1 || !r.GRPC || r.Coded {
		t.Errorf("headers: %+v", r)
	}
	if got := names(&out); got != ":status content-type x " {
		t.Errorf("passed on: %s", got)
	}
	if r := ReadResponse(list("grpc-status", "14"), &out); r.Fault != "" || !r.Coded || r.Code != CodeUnavailable {
		t.Errorf("trailers: %+v", r)
	}
	for name, l := range map[string]*headers.List{
		"a status that is no number": list(":status", "2x0"),
		"two statuses":               list(":status", "200", ":status", "200"),
		"a status after a field":     list("a", "b", ":status", "200"),
		"a code with a sign":         list("grpc-status", "+0"),
		"two codes":                  list("grpc-status", "0", "grpc-status", "0"),
		"a control character":        list("a", "\x00"),
	} {
		if r := ReadResponse(l, &out); r.Fault == "" {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestStatusList(t *testing.T) {
	l := StatusList(CodeInternal, "50 % of \n")
	code, _ := l.Get("grpc-status")
	message, _ := l.Get("grpc-message")
	if code != "13" || message != "50 %25 of %0A" || !AreTrailers(l) {
		t.Errorf("status %q, message %q", code, message)
	}
}
