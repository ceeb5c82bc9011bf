package relay

import (
	"strconv"
	"time"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/headers"
)

// The status codes of gRPC that the relay gives by itself.
const (
	codeOK                = 0
	codeCanceled          = 1
	codeUnknown           = 2
	codeInvalidArgument   = 3
	codeDeadlineExceeded  = 4
	codeResourceExhausted = 8
	codeUnimplemented     = 12
	codeInternal          = 13
	codeUnavailable       = 14
	codePermissionDenied  = 7
)

// addStatus adds a status to trailers.
func addStatus(l *headers.List, code uint32, message string) {
	l.Add("grpc-status", codeText(code))
	l.Add("grpc-message", escape(message))
}

var codeTexts = [...]string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"}

func codeText(code uint32) string {
	if code < uint32(len(codeTexts)) {
		return codeTexts[code]
	}
	return strconv.FormatUint(uint64(code), 10)
}

// escape percent-encodes a grpc-message.
func escape(s string) string {
	const hex = "0123456789ABCDEF"
	var b []byte
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c > '~' || c == '%':
			if b == nil {
				b = append(make([]byte, 0, len(s)+8), s[:i]...)
			}
			b = append(b, '%', hex[c>>4], hex[c&15])
		case b != nil:
			b = append(b, c)
		}
	}
	if b == nil {
		return s
	}
	return string(b)
}

// codeOfStatus reads a grpc-status. What is none is UNKNOWN, as clients take it.
func codeOfStatus(s string) uint32 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return codeUnknown
	}
	return uint32(n)
}

// codeOfReset is what clients make of RST_STREAM, by the table in gRPC over HTTP/2.
func codeOfReset(code http2.ErrCode) uint32 {
	switch code {
	case http2.ErrCodeRefusedStream:
		return codeUnavailable
	case http2.ErrCodeCancel:
		return codeCanceled
	case http2.ErrCodeEnhanceYourCalm:
		return codeResourceExhausted
	case http2.ErrCodeInadequateSecurity:
		return codePermissionDenied
	default:
		return codeInternal
	}
}

// parseTimeout reads a grpc-timeout.
func parseTimeout(s string) (time.Duration, bool) {
	if len(s) < 2 || len(s) > 9 {
		return 0, false
	}
	var unit time.Duration
	switch s[len(s)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	var n int64
	for i := range len(s) - 1 {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = 10*n + int64(s[i]-'0')
	}
	const most = 1<<63 - 1
	if n > most/int64(unit) {
		return most, true
	}
	return time.Duration(n) * unit, true
}

// appendTimeout writes a grpc-timeout, at most eight digits, rounded up.
func appendTimeout(b []byte, d time.Duration) []byte {
	if d <= 0 {
		return append(b, "0n"...)
	}
	for _, u := range [...]struct {
		unit time.Duration
		name byte
	}{{time.Nanosecond, 'n'}, {time.Microsecond, 'u'}, {time.Millisecond, 'm'}, {time.Second, 'S'}, {time.Minute, 'M'}} {
		if n := (d-1)/u.unit + 1; n < 1e8 {
			return append(strconv.AppendInt(b, int64(n), 10), u.name)
		}
	}
	return append(strconv.AppendInt(b, int64((d-1)/time.Hour+1), 10), 'H')
}
