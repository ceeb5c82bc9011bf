package unit

import (
	"regexp"
	"testing"
	"unicode/utf8"
)

func FuzzParseRestartBudget(f *testing.F) {
	for _, s := range []string{"10/5m", "0/1h", "1000/0.5s", "3", "-1/5m", "1/-5m", "1/5m/1", "/", ""} {
		f.Add(s)
	}
	shape := regexp.MustCompile(`^[+-]?[0-9]+/[+]?(0|[0-9]*\.?[0-9]*(ns|us|µs|μs|ms|s|m|h))+$`)
	f.Fuzz(func(t *testing.T, s string) {
		b, err := ParseRestartBudget(s)
		if err != nil {
			if b != (RestartBudget{}) || !utf8.ValidString(err.Error()) {
				t.Errorf("%+v beside %q", b, err)
			}
			return
		}
		if b.Restarts < 0 || b.Window <= 0 || !shape.MatchString(s) {
			t.Errorf("%q is read as %+v", s, b)
		}
		if again, err := ParseRestartBudget(b.String()); err != nil || again != b {
			t.Errorf("%q is printed as %q, which is %+v, %v", s, b, again, err)
		}
	})
}
