package protocol

import (
	"math"
	"testing"
	"time"
)

func TestParseTimeout(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0n": 0, "0S": 0, "1n": 1, "7u": 7 * time.Microsecond, "20m": 20 * time.Millisecond, "9S": 9 * time.Second,
		"1M": time.Minute, "00000001H": time.Hour, "99999999H": math.MaxInt64,
		"": -1, "S": -1, "1": -1, "1s": -1, "-1S": -1, "+1S": -1, "1.5S": -1, "1 S": -1, "100000000n": -1,
	} {
		if d, ok := parseTimeout(text); ok != (want >= 0) || ok && d != want {
			t.Errorf("parseTimeout(%q) = %v, %t, want %v", text, d, ok, want)
		}
	}
}

// The timeout sent never exceeds the time left, and is never 0, which some servers take for no deadline.
func TestAppendTimeout(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "1n", 0: "1n", 1: "1n", 99_999_999: "99999999n", 100_000_000: "100000u",
		time.Minute + 1: "60000001u", math.MaxInt64: "2562048H",
	} {
		if got := string(AppendTimeout(nil, d)); got != want {
			t.Errorf("appendTimeout(%v) = %s, want %s", d, got, want)
		}
	}
}
