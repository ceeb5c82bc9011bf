package protocol

import "github.com/core-tools/hsu-master/api/relay/headers"

// Response holds the fields of a response's headers that the relay uses.
type Response struct {
	Statuses int // number of :status fields
	Status   int // value of the last :status
	GRPC     bool
	Coded    bool // there is a grpc-status
	Code     uint32
	Fault    string // why the headers are not valid, "" if they are
}

const notHTTP2 = "headers that HTTP/2 does not allow"

// ReadResponse reads the headers or trailers of a response, and appends to out those that are passed on.
func ReadResponse(l, out *headers.List) (a Response) {
	regular := false
	for f := range l.All {
		name, value := f.Name(), f.Value()
		if !fieldName(name) || !fieldValue(value) {
			a.Fault = notHTTP2
			return a
		}
		if name[0] == ':' {
			var ok bool
			a.Status, ok = parseStatus(value)
			if a.Statuses++; name != ":status" || regular || a.Statuses > 1 || !ok {
				a.Fault = notHTTP2
				return a
			}
			out.AddField(f)
			continue
		}
		regular = true
		switch name {
		case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te":
			continue
		case "content-type":
			a.GRPC = isGRPC(value)
		case "grpc-status":
			var ok bool
			if a.Code, ok = parseCode(value); a.Coded || !ok {
				a.Fault = "a grpc-status that is no number, or more than one" // clients disagree on these
			}
			a.Coded = true
		}
		out.AddField(f)
	}
	return a
}

// parseStatus parses an HTTP status.
func parseStatus(value string) (status int, ok bool) {
	if len(value) != 3 {
		return 0, false
	}
	for i := range len(value) {
		if value[i] < '0' || value[i] > '9' {
			return 0, false
		}
		status = 10*status + int(value[i]-'0')
	}
	return status, true
}
