package relay

import "github.com/core-tools/hsu-master/api/relay/headers"

// answer holds the fields of a response's headers that the relay uses.
type answer struct {
	statuses int // number of :status fields
	status   int // value of the last :status
	grpc     bool
	coded    bool // there is a grpc-status
	code     uint32
	fault    string // why the headers are not valid, "" if they are
}

const notHTTP2 = "headers that HTTP/2 does not allow"

// readAnswer reads the headers or trailers of a response, and appends to out those that are passed on.
func readAnswer(l, out *headers.List) (a answer) {
	regular := false
	for f := range l.All {
		name, value := f.Name(), f.Value()
		if !fieldName(name) || !fieldValue(value) {
			a.fault = notHTTP2
			return a
		}
		if name[0] == ':' {
			var ok bool
			a.status, ok = parseStatus(value)
			if a.statuses++; name != ":status" || regular || a.statuses > 1 || !ok {
				a.fault = notHTTP2
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
			a.grpc = isGRPC(value)
		case "grpc-status":
			var ok bool
			if a.code, ok = parseCode(value); a.coded || !ok {
				a.fault = "a grpc-status that is no number, or more than one" // clients disagree on these
			}
			a.coded = true
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
