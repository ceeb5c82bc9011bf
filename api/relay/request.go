package relay

import (
	"errors"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/headers"
)

// maxStreams of a client's connection at a time.
const maxStreams = 1024

// RequestID is the metadata key by which a caller allows a call to be done again.
const RequestID = "hsu-request-id"

// head is what the headers of a request say to the relay. Its strings lie in the list's memory.
type head struct {
	method, scheme, path, contentType string
	authority, host                   int
	timeout                           time.Duration
	timeoutBad                        bool
	marked                            bool
	length                            int64
	trace, request                    string // traceparent, and the value of RequestID
	malformed                         bool   // not as HTTP/2 wants it
	returned                          bool   // has been here: see via
}

// via is the header by which a relay knows its own calls again (RFC 9110, section 7.6.3). Masters can be endpoints of
// each other, and a call for which none of them has a worker would go round, as one more call each time.
const via = "via"

// readHead looks through the headers of a request and appends to out those that are passed on. own is what this relay
// is called in [via].
func readHead(l, out *headers.List, own string) (h head) {
	h.length = -1
	pseudo, regular := 0, false
	for f := range l.All {
		name, value := f.Name(), f.Value()
		if !fieldName(name) || !fieldValue(value) {
			h.malformed = true
			return h
		}
		if name[0] == ':' {
			var bit int
			switch name {
			case ":method":
				h.method, bit = value, 1
			case ":scheme":
				h.scheme, bit = value, 2
			case ":path":
				h.path, bit = value, 4
			case ":authority":
				h.authority++
				bit = 8
				if h.authority > 1 {
					out.AddField(f)
					continue
				}
			default:
				h.malformed = true
			}
			if regular || pseudo&bit != 0 {
				h.malformed = true
			}
			pseudo |= bit
			out.AddField(f)
			continue
		}
		regular = true
		switch name {
		case "connection":
			h.malformed = true
		case "te":
			if value != "trailers" {
				h.malformed = true
			}
		case "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
			continue
		case "content-type":
			h.contentType = value
		case "grpc-timeout":
			var ok bool
			if h.timeout, ok = parseTimeout(value); !ok {
				h.timeoutBad = true
			}
		case "host":
			h.host++
		case "content-length":
			n, err := strconv.ParseUint(value, 10, 62)
			if err != nil {
				h.malformed = true
			}
			h.length = int64(n)
		case RequestID:
			h.marked, h.request = true, value
		case "traceparent":
			h.trace = value
		case via:
			h.returned = h.returned || strings.Contains(value, own)
		}
		out.AddField(f)
	}
	if pseudo&7 != 7 || h.path == "" {
		h.malformed = true
	}
	return h
}

// fieldName tells whether a name may stand in HTTP/2: a token in lower case, behind the colon of a pseudo-header
// (RFC 9113, section 8.2.1; RFC 9110, section 5.6.2). Clients end a call for one that may not.
func fieldName(name string) bool {
	token := strings.TrimPrefix(name, ":")
	for i := range len(token) {
		if c := token[i]; !httpguts.IsTokenRune(rune(c)) || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return token != ""
}

// fieldValue tells whether a value has no control characters, for which clients end a call as well.
func fieldValue(value string) bool { return httpguts.ValidHeaderFieldValue(value) }

// isGRPC tells whether a content type is gRPC's.
func isGRPC(contentType string) bool {
	const base = "application/grpc"
	if len(contentType) < len(base) || !strings.EqualFold(contentType[:len(base)], base) {
		return false
	}
	return len(contentType) == len(base) || contentType[len(base)] == '+' || contentType[len(base)] == ';'
}

// splitPath splits the path of a call into its service and its method.
func splitPath(path string) (service, method string, ok bool) {
	if path == "" || path[0] != '/' {
		return "", "", false
	}
	i := strings.LastIndexByte(path, '/')
	if i == 0 {
		return "", "", false
	}
	return path[1:i], path[i+1:], true
}

// request handles a header block from a client: a new call, or the trailers of a request.
func (c *conn) request(id uint32, l *headers.List, end bool) error {
	if id&1 == 0 {
		return connError{http2.ErrCodeProtocol, "a client's stream with an even id"}
	}
	if id <= c.newest {
		return c.requestTrailers(id, l, end)
	}
	c.newest = id
	k := calls.Get().(*call)
	k.mu.Lock()
	defer k.unlock(&c.batch)
	c.mu.Lock()
	if c.drain == draining {
		// The GOAWAY that it has not read yet names this one as not seen. Not all clients look at that.
		c.mu.Unlock()
		c.reset(&c.batch, id, http2.ErrCodeRefusedStream)
		return nil
	}
	c.lastID = id
	if c.calls.n >= maxStreams {
		c.mu.Unlock()
		c.reset(&c.batch, id, http2.ErrCodeRefusedStream)
		return nil
	}
	c.calls.put(id, k)
	initial := c.initial
	c.mu.Unlock()

	r := c.relay
	k.relay, k.client, k.clientID = r, c, id
	k.began = r.now()
	k.up.recv, k.up.window = firstWindow, firstWindow
	k.down.recv, k.down.window = firstWindow, firstWindow
	k.down.send = initial
	k.up.ended = end
	if l.Truncated {
		k.fail(&c.batch, codeResourceExhausted, "metadata is larger than "+strconv.Itoa(maxHeaderList)+" bytes")
		return nil
	}
	c.passed.Reset()
	h := readHead(l, &c.passed, r.name)
	k.up.declared = h.length
	if h.malformed || end && h.length > 0 {
		k.violated(&c.batch, c, http2.ErrCodeProtocol)
		return nil
	}
	if h.returned {
		r.trouble("call refused", c, errReturned)
		k.code = codeUnavailable
		c.reset(&c.batch, id, http2.ErrCodeRefusedStream) // so that who sent it tries another endpoint
		k.leaveClient(&c.batch)
		return nil
	}
	if !k.accept(&c.batch, &h) {
		return nil
	}
	if !k.keepRequest(&c.passed) {
		k.fail(&c.batch, codeResourceExhausted, "too much metadata of this client's calls waits for answers")
		return nil
	}
	k.up.q.keep = true
	k.dispatch(&c.batch)
	k.settle(&c.batch)
	return nil
}

// errReturned is that of a call which this relay has passed on itself.
var errReturned = errors.New("it has been here: masters are endpoints of each other, and no worker of theirs took it")

// accept decides where the call goes. It returns false where it has been answered.
func (k *call) accept(b *batch, h *head) bool {
	r := k.relay
	switch {
	case h.authority > 1 || h.host > 1:
		k.refuse(b, "400", codeInternal, "more than one :authority or host")
		return false
	case !isGRPC(h.contentType):
		k.refuse(b, "415", codeInvalidArgument, "invalid gRPC request content-type "+strconv.Quote(h.contentType))
		return false
	case h.timeoutBad:
		k.refuse(b, "400", codeInternal, "malformed grpc-timeout")
		return false
	case h.authority == 0 && h.host == 0:
		k.refuse(b, "400", codeInternal, "no host or :authority header present")
		return false
	case h.method != "POST":
		k.refuse(b, "405", codeInternal, "received a HEADERS frame with :method "+strconv.Quote(h.method)+" which should be POST")
		return false
	}
	k.timeout, k.marked = h.timeout, h.marked
	if r.debug {
		k.about = &about{path: strings.Clone(h.path), trace: strings.Clone(traceID(h.trace)), request: strings.Clone(h.request)}
	}
	name, _, ok := splitPath(h.path)
	if !ok {
		k.fail(b, codeUnimplemented, "malformed method name: "+strconv.Quote(h.path))
		return false
	}
	counted := r.opts.Counted[h.path]
	if !r.localMethods[h.path] || counted && !k.marked {
		k.service = r.opts.Registry.Service(name)
	}
	if k.service != nil {
		k.counts, k.policy = counted, k.service.Policy()
	} else if k.policy = r.localPolicies[name]; k.policy == nil { // not local either
		k.fail(b, codeUnimplemented, "unknown service "+strings.Clone(name))
		return false
	}
	if k.counts {
		if err := r.opts.Counter.Writable(); err != nil {
			k.fail(b, codeUnavailable, notCounted+err.Error())
			return false
		}
	}
	if k.service != nil && k.policy.Affinity != "" {
		k.affinity = find(&k.client.passed, k.policy.Affinity)
	}
	return true
}

// find returns where the value of that name lies in the bytes of a list.
func find(l *headers.List, name string) span {
	value, ok := l.Get(name)
	if !ok || value == "" {
		return span{}
	}
	from := int(uintptr(unsafe.Pointer(unsafe.StringData(value))) - uintptr(unsafe.Pointer(unsafe.SliceData(l.Bytes()))))
	return span{from, from + len(value)}
}

// refuse answers what is not gRPC's in HTTP's words too.
func (k *call) refuse(b *batch, httpStatus string, code uint32, message string) {
	k.code = code
	var l headers.List
	l.Add(":status", httpStatus)
	l.Add("content-type", "application/grpc")
	addStatus(&l, code, message)
	k.client.sendHeaders(b, k.clientID, l.Bytes(), true)
	k.down.ended, k.down.endSent = true, true
	k.settle(b)
}

// requestTrailers handles headers on a stream that is open or was.
func (c *conn) requestTrailers(id uint32, l *headers.List, end bool) error {
	c.mu.Lock()
	k := c.calls.get(id)
	ended := c.closed.has(id)
	c.mu.Unlock()
	if k == nil {
		if c.ignores(id) {
			return nil
		}
		if ended {
			return connError{http2.ErrCodeStreamClosed, "HEADERS on a closed stream"}
		}
		return connError{http2.ErrCodeProtocol, "a stream with an id that was passed over"}
	}
	k.mu.Lock()
	defer k.unlock(&c.batch)
	switch {
	case k.client != c || k.clientID != id:
		return nil
	case k.up.ended:
		k.violated(&c.batch, c, http2.ErrCodeStreamClosed)
		return nil
	case !end || l.Truncated || !k.up.declare(0, true) || !trailing(l):
		k.violated(&c.batch, c, http2.ErrCodeProtocol)
		return nil
	}
	// No gRPC client sends trailers, and no server reads them: the end is passed on.
	k.up.data(&c.batch, nil, 0, true)
	k.settle(&c.batch)
	return nil
}

// trailing tells whether a list may stand behind a body.
func trailing(l *headers.List) bool {
	for f := range l.All {
		if name := f.Name(); !fieldName(name) || name[0] == ':' || !fieldValue(f.Value()) {
			return false
		}
	}
	return true
}
