package protocol

import (
	"strings"
	"testing"
)

func TestTraceID(t *testing.T) {
	const id = "4bf92f3577b34da6a3ce929d0e0e4736"
	for parent, want := range map[string]string{
		"00-" + id + "-00f067aa0ba902b7-01":                      id,
		"cc-" + id + "-00f067aa0ba902b7-01-more":                 id,
		"00-" + strings.ToUpper(id) + "-00f067aa0ba902b7-01":     "",
		"00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01": "",
		"00-" + id + "-00f067aa0ba902b7":                         "",
		"00-" + id + "0" + "-00f067aa0ba902b7-01":                "",
		"": "",
	} {
		if got := TraceID(parent); got != want {
			t.Errorf("%q: %q, want %q", parent, got, want)
		}
	}
}
