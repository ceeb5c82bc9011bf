package relay

import (
	"math"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/supervisor/services"
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
		if got := string(appendTimeout(nil, d)); got != want {
			t.Errorf("appendTimeout(%v) = %s, want %s", d, got, want)
		}
	}
}

func TestDeadline(t *testing.T) {
	for _, c := range []struct {
		d      deadline
		now    time.Duration
		passed bool
	}{
		{deadline{}, math.MaxInt64, false},
		{deadlineAfter(5, 0), 5, true},
		{deadlineAfter(5, 2), 6, false},
		{deadlineAfter(5, 2), 7, true},
		{deadlineAfter(5, math.MaxInt64), math.MaxInt64 - 1, false},
	} {
		if got := c.d.passed(c.now); got != c.passed {
			t.Errorf("%+v.passed(%d) = %t", c.d, c.now, got)
		}
	}
}

// A call that has no time left ends, whether or not there is an endpoint for it, and no endpoint sees it.
func TestCallWithoutTimeLeft(t *testing.T) {
	waits, ready := services.New(), services.New()
	b := newRawBackend(t)
	waits.AddIdle(b.endpoint, serviceName)
	ready.Add(b.endpoint, serviceName)
	for name, registry := range map[string]*services.Registry{
		"no endpoint is ready": waits, "an endpoint is ready": ready,
	} {
		_, addr := startRelay(t, Options{Registry: registry}, nil...)
		client := rawClient(t, addr)
		id := uint32(1)
		for _, timeout := range []string{"0n", "0S", "00000000H", "1n"} {
			client.call(id, true, "grpc-timeout", timeout)
			if code, message := client.status(id); code != codeDeadlineExceeded {
				t.Errorf("%s: grpc-timeout %s: status %d %q", name, timeout, code, message)
			}
			id += 2
		}
		if registry == ready {
			client.call(id, true, "grpc-timeout", "99999999H")
			if f := next(b.accept(), anyHeaders); f.StreamID != 1 || field(f, "grpc-timeout") != "99999999H" {
				t.Errorf("the endpoint saw %v on stream %d", f.Fields, f.StreamID)
			}
		}
	}
}
