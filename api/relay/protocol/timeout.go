package protocol

import (
	"math"
	"strconv"
	"time"
)

// parseTimeout parses a grpc-timeout.
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
	if n > math.MaxInt64/int64(unit) {
		return math.MaxInt64, true
	}
	return time.Duration(n) * unit, true
}

// AppendTimeout appends a grpc-timeout of at most eight digits, rounded up. It is never 0, which some servers take
// for no timeout.
func AppendTimeout(b []byte, d time.Duration) []byte {
	d = max(d, 1)
	for _, u := range [...]struct {
		unit time.Duration
		name byte
	}{
		{time.Nanosecond, 'n'},
		{time.Microsecond, 'u'},
		{time.Millisecond, 'm'},
		{time.Second, 'S'},
		{time.Minute, 'M'},
	} {
		if n := (d-1)/u.unit + 1; n < 1e8 {
			return append(strconv.AppendInt(b, int64(n), 10), u.name)
		}
	}
	return append(strconv.AppendInt(b, int64((d-1)/time.Hour+1), 10), 'H')
}
