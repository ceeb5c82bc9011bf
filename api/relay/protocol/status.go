package protocol

import (
	"strconv"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/headers"
)

// The gRPC status codes that the relay itself uses.
const (
	CodeOK                = 0
	CodeCanceled          = 1
	CodeUnknown           = 2
	CodeInvalidArgument   = 3
	CodeDeadlineExceeded  = 4
	CodeResourceExhausted = 8
	CodeUnimplemented     = 12
	CodeInternal          = 13
	CodeUnavailable       = 14
	codePermissionDenied  = 7
)

// AddStatus adds a status to trailers.
func AddStatus(l *headers.List, code uint32, message string) {
	l.Add("grpc-status", codeText(code))
	l.Add("grpc-message", escape(message))
}

// StatusList returns the trailers that hold a status.
func StatusList(code uint32, message string) *headers.List {
	var l headers.List
	AddStatus(&l, code, message)
	return &l
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

// parseCode parses a grpc-status. It accepts digits only, since "+0" is OK for some clients and not for others.
func parseCode(s string) (code uint32, ok bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil
}

// CodeOfReset returns the status that clients derive from RST_STREAM, by the table in gRPC over HTTP/2.
func CodeOfReset(code http2.ErrCode) uint32 {
	switch code {
	case http2.ErrCodeRefusedStream:
		return CodeUnavailable
	case http2.ErrCodeCancel:
		return CodeCanceled
	case http2.ErrCodeEnhanceYourCalm:
		return CodeResourceExhausted
	case http2.ErrCodeInadequateSecurity:
		return codePermissionDenied
	default:
		return CodeInternal
	}
}

// ResetOf returns the code with which the relay resets the client's stream after the endpoint has reset the call:
// the endpoint's code, if that is about the call. NO_ERROR would mean that the response is complete, REFUSED_STREAM
// that the call was not seen, and the other codes are about the connection to the endpoint.
func ResetOf(code http2.ErrCode) http2.ErrCode {
	switch code {
	case http2.ErrCodeCancel, http2.ErrCodeEnhanceYourCalm, http2.ErrCodeInadequateSecurity:
		return code
	default:
		return http2.ErrCodeInternal
	}
}
