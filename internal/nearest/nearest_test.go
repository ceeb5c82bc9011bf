package nearest

import (
	"strings"
	"testing"
)

func TestDidYouMean(t *testing.T) {
	names := []string{"status", "state", "--worker-count", "--version"}
	for given, want := range map[string]string{
		"stauts":                    ` (did you mean "status"?)`,
		"--worker-cuont":            ` (did you mean "--worker-count"?)`,
		"--versino":                 ` (did you mean "--version"?)`,
		"--json":                    "", // the dashes make no flag alike
		"frobnicate":                "",
		"":                          "",
		strings.Repeat("state", 99): "",
	} {
		if got := DidYouMean(given, names); got != want {
			t.Errorf("%q: %q, want %q", given, got, want)
		}
	}
}
