package protocol

// TraceID returns the trace id in a traceparent (W3C Trace Context), or "" if that is not valid.
func TraceID(parent string) string {
	const id, whole = 2 + 1, 2 + 1 + 32 + 1 + 16 + 1 + 2
	if len(parent) < whole || parent[2] != '-' || parent[id+32] != '-' {
		return ""
	}
	trace, zeros := parent[id:id+32], 0
	for i := range len(trace) {
		switch c := trace[i]; {
		case c == '0':
			zeros++
		case '1' <= c && c <= '9', 'a' <= c && c <= 'f':
		default:
			return ""
		}
	}
	if zeros == len(trace) {
		return ""
	}
	return trace
}
