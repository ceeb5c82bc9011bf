// Package protocol is gRPC over HTTP/2 as far as a relay has to know it: what the headers of requests and responses
// say, paths, timeouts, status codes, and where messages begin. Its functions are pure and know no connection. They
// decide which calls are valid; the relay decides what becomes of the others.
package protocol

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/core-tools/hsu-master/api/relay/headers"
)

// RequestID is the metadata key by which a caller allows a call to be executed again.
const RequestID = "hsu-request-id"

// Client is the metadata key by which the relay names the client of a call to the local server: its peer, a comma,
// a space, and its connection. Values that clients send under that key are dropped.
const Client = "hsu-client"

// Request holds the fields of a request's headers that the relay uses. Its strings share the list's memory.
type Request struct {
	Path                      string
	method, scheme, authority string // of the pseudo-headers

	Timeout    time.Duration
	Timed      bool   // has a timeout
	Idempotent bool   // carries hsu-request-id
	Length     int64  // -1 if it is not declared
	Trace      string // traceparent
	ID         string // the value of RequestID
	Returned   bool   // has passed this relay before: see [Via]
	Malformed  bool   // violates HTTP/2

	host, contentType                          string
	timeoutOK                                  bool
	authorities, hosts, timeouts, contentTypes int // numbers of these fields
}

// Via is the header by which a relay recognizes its own calls (RFC 9110, section 7.6.3). Masters can be endpoints
// of each other. A call for which none of them has a worker would go round between them, as an additional call each
// time.
const Via = "via"

// ReadRequest reads the headers of a request, and appends to out those that are passed on. own is this relay's name in
// [Via].
func ReadRequest(l, out *headers.List, own string) (h Request) {
	h.Length = -1
	pseudo, regular := pseudos(0), false
	for f := range l.All {
		name, value := f.Name(), f.Value()
		if !fieldName(name) || !fieldValue(value) {
			h.Malformed = true
			return h
		}
		if name[0] == ':' {
			h.Malformed = h.Malformed || regular || !h.pseudo(name, value, &pseudo)
		} else {
			regular = true
			h.field(name, value, own)
			if name == Client {
				continue
			}
		}
		out.AddField(f)
	}
	h.Malformed = h.Malformed || !pseudo.whole() || !h.consistent()
	return h
}

// pseudos is the set of pseudo-headers that a request has had.
type pseudos uint8

const (
	methodPseudo pseudos = 1 << iota
	schemePseudo
	pathPseudo
)

// add adds a pseudo-header to the set. It returns false if the set has it already.
func (p *pseudos) add(one pseudos) bool {
	repeated := *p&one != 0
	*p |= one
	return !repeated
}

// whole reports whether the set has all pseudo-headers that a call must have.
func (p *pseudos) whole() bool { return *p == methodPseudo|schemePseudo|pathPseudo }

// pseudo reads a pseudo-header. It returns false if that is not allowed.
func (h *Request) pseudo(name, value string, had *pseudos) bool {
	switch name {
	case ":method":
		h.method = value
		return had.add(methodPseudo)
	case ":scheme":
		h.scheme = value
		return had.add(schemePseudo)
	case ":path":
		h.Path = value
		return had.add(pathPseudo)
	case ":authority":
		h.authority = value
		h.authorities++ // the relay answers more than one with a message
		return true
	default:
		return false
	}
}

// field reads a regular field.
func (h *Request) field(name, value, own string) {
	switch name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		h.Malformed = true
	case "te":
		h.Malformed = h.Malformed || value != "trailers"
	case "content-type":
		h.contentType = value
		h.contentTypes++
	case "grpc-timeout":
		h.Timeout, h.timeoutOK = parseTimeout(value)
		h.Timed = true
		h.timeouts++
	case "host":
		h.host = value
		h.hosts++
	case "content-length":
		n, err := strconv.ParseUint(value, 10, 62)
		h.Malformed = h.Malformed || err != nil || h.Length >= 0 // or a second one
		h.Length = int64(n)
	case RequestID:
		h.Idempotent, h.ID = true, value
	case "traceparent":
		h.Trace = value
	case Via:
		h.Returned = h.Returned || strings.Contains(value, own)
	}
}

// consistent reports whether all recipients interpret the headers as the same call (RFC 9113, section 8.3.1).
func (h *Request) consistent() bool {
	switch {
	case h.Path == "" || h.contentTypes > 1:
		return false
	case h.scheme != "http" && h.scheme != "https":
		return false
	case !isAuthority(h.authority) || !isAuthority(h.host):
		return false
	}
	return h.authorities != 1 || h.hosts != 1 || sameAuthority(h.scheme, h.authority, h.host)
}

// isAuthority reports whether a value has only characters of a host and a port, which excludes userinfo, for
// example.
func isAuthority(value string) bool {
	for i := range len(value) {
		if c := value[i]; c <= ' ' || c > '~' || strings.IndexByte("@/\\?#,\"<>^`{|}", c) >= 0 {
			return false
		}
	}
	return true
}

// sameAuthority reports whether both name the same host and port.
func sameAuthority(scheme, a, b string) bool {
	port := ":80"
	if scheme == "https" {
		port = ":443"
	}
	return strings.EqualFold(strings.TrimSuffix(a, port), strings.TrimSuffix(b, port))
}

// fieldName reports whether a name is valid in HTTP/2: a token in lower case, after the colon of a pseudo-header
// (RFC 9113, section 8.2.1; RFC 9110, section 5.6.2). Clients end a call that has an invalid name.
func fieldName(name string) bool {
	token := strings.TrimPrefix(name, ":")
	for i := range len(token) {
		if c := token[i]; !httpguts.IsTokenRune(rune(c)) || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return token != ""
}

// fieldValue reports whether a value has no control characters. Clients end a call that has such a value.
func fieldValue(value string) bool { return httpguts.ValidHeaderFieldValue(value) }

// Refusal is the answer to a request that is valid HTTP/2 and not valid gRPC.
type Refusal struct {
	HTTPStatus string
	Code       uint32
	Message    string
}

// Refusal returns the answer to the request, if the request must be refused.
func (h *Request) Refusal() (r Refusal, refused bool) {
	switch {
	case h.authorities > 1 || h.hosts > 1:
		return Refusal{"400", CodeInternal, "more than one :authority or host"}, true
	case !isGRPC(h.contentType):
		return Refusal{
			"415", CodeInvalidArgument, "invalid gRPC request content-type " + strconv.Quote(h.contentType),
		}, true
	case h.timeouts > 1 || h.timeouts == 1 && !h.timeoutOK:
		return Refusal{"400", CodeInternal, "malformed grpc-timeout"}, true
	case h.authorities == 0 && h.hosts == 0:
		return Refusal{"400", CodeInternal, "no host or :authority header present"}, true
	case h.method != http.MethodPost:
		return Refusal{
			"405", CodeInternal,
			"received a HEADERS frame with :method " + strconv.Quote(h.method) + " which should be POST",
		}, true
	}
	return Refusal{}, false
}

// isGRPC reports whether a content type is one of gRPC.
func isGRPC(contentType string) bool {
	const base = "application/grpc"
	if len(contentType) < len(base) || !strings.EqualFold(contentType[:len(base)], base) {
		return false
	}
	return len(contentType) == len(base) || contentType[len(base)] == '+' || contentType[len(base)] == ';'
}

// AreTrailers reports whether a list may be the trailers of a request.
func AreTrailers(l *headers.List) bool {
	for f := range l.All {
		if name := f.Name(); !fieldName(name) || name[0] == ':' || !fieldValue(f.Value()) {
			return false
		}
	}
	return true
}
