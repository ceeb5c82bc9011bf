package relay

import (
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

// head holds the fields of a request's headers that the relay uses. Its strings share the list's memory.
type head struct {
	method, scheme, path, authority string // of the pseudo-headers

	contentType string
	host        string
	timeout     time.Duration
	timeoutOK   bool
	idempotent  bool   // carries hsu-request-id
	length      int64  // -1 if it is not declared
	trace       string // traceparent
	request     string // the value of RequestID
	returned    bool   // has passed this relay before: see via
	malformed   bool   // violates HTTP/2

	authorities, hosts, timeouts, contentTypes int // numbers of these fields
}

// via is the header by which a relay recognizes its own calls (RFC 9110, section 7.6.3). Masters can be endpoints
// of each other. A call for which none of them has a worker would go round between them, as an additional call each
// time.
const via = "via"

// readHead reads the headers of a request, and appends to out those that are passed on. own is this relay's name in
// [via].
func readHead(l, out *headers.List, own string) (h head) {
	h.length = -1
	pseudo, regular := pseudos(0), false
	for f := range l.All {
		name, value := f.Name(), f.Value()
		if !fieldName(name) || !fieldValue(value) {
			h.malformed = true
			return h
		}
		if name[0] == ':' {
			h.malformed = h.malformed || regular || !h.pseudo(name, value, &pseudo)
		} else {
			regular = true
			h.field(name, value, own)
			if name == Client {
				continue
			}
		}
		out.AddField(f)
	}
	h.malformed = h.malformed || !pseudo.whole() || !h.consistent()
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
func (h *head) pseudo(name, value string, had *pseudos) bool {
	switch name {
	case ":method":
		h.method = value
		return had.add(methodPseudo)
	case ":scheme":
		h.scheme = value
		return had.add(schemePseudo)
	case ":path":
		h.path = value
		return had.add(pathPseudo)
	case ":authority":
		h.authority = value
		h.authorities++ // accept answers more than one with a message
		return true
	default:
		return false
	}
}

// field reads a regular field.
func (h *head) field(name, value, own string) {
	switch name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		h.malformed = true
	case "te":
		h.malformed = h.malformed || value != "trailers"
	case "content-type":
		h.contentType = value
		h.contentTypes++
	case "grpc-timeout":
		h.timeout, h.timeoutOK = parseTimeout(value)
		h.timeouts++
	case "host":
		h.host = value
		h.hosts++
	case "content-length":
		n, err := strconv.ParseUint(value, 10, 62)
		h.malformed = h.malformed || err != nil || h.length >= 0 // or a second one
		h.length = int64(n)
	case RequestID:
		h.idempotent, h.request = true, value
	case "traceparent":
		h.trace = value
	case via:
		h.returned = h.returned || strings.Contains(value, own)
	}
}

// consistent reports whether all recipients interpret the headers as the same call (RFC 9113, section 8.3.1).
func (h *head) consistent() bool {
	switch {
	case h.path == "" || h.contentTypes > 1:
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

// isGRPC reports whether a content type is one of gRPC.
func isGRPC(contentType string) bool {
	const base = "application/grpc"
	if len(contentType) < len(base) || !strings.EqualFold(contentType[:len(base)], base) {
		return false
	}
	return len(contentType) == len(base) || contentType[len(base)] == '+' || contentType[len(base)] == ';'
}

// trailing reports whether a list may be the trailers of a request.
func trailing(l *headers.List) bool {
	for f := range l.All {
		if name := f.Name(); !fieldName(name) || name[0] == ':' || !fieldValue(f.Value()) {
			return false
		}
	}
	return true
}
