package importer

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestUnitName(t *testing.T) {
	long := strings.Repeat("a", 70)
	for foreign, want := range map[string]string{
		"web": "web", "Web": "web", "web.1": "web_1", "web-1": "web_1", "web-1-2": "web-1_2", "_web_": "web",
		"a b/c": "a-b-c", "": "unit", "-": "unit", "ä": "unit", "1": "1", "a--1": "a_1", "1-2": "1_2",
		"x-a": "x_a", "x-": "x", long: long[:63],
	} {
		if got := unitName(foreign); got != want {
			t.Errorf("%q: %q, want %q", foreign, got, want)
		}
	}
}

// Units with like names stay apart.
func TestFreeName(t *testing.T) {
	d := newDocument()
	got := []string{}
	for _, name := range []string{"a", "A", "a_2", "a", strings.Repeat("b", 63), strings.Repeat("B", 63)} {
		got = append(got, d.unit(name).entry.name)
	}
	want := []string{"a", "a_2", "a_2_2", "a_3", strings.Repeat("b", 63), strings.Repeat("b", 61) + "_2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Only a line that is one program can take the place of its shell.
func TestInPlace(t *testing.T) {
	for line, want := range map[string]string{
		"node server.js":         "exec node server.js",
		"node":                   "exec node",
		"./run --port $PORT":     "exec ./run --port $PORT",
		"A=b node":               "A=b node",
		"cd web && node":         "cd web && node",
		"cd web":                 "cd web",
		"a | b":                  "a | b",
		"a > log":                "a > log",
		"a `b`":                  "a `b`",
		"exec a":                 "exec a",
		"if true; then a; fi":    "if true; then a; fi",
		"bin/a 'quoted; text' b": "bin/a 'quoted; text' b",
	} {
		if got := inPlace(line); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

func TestIntervalFields(t *testing.T) {
	for interval, want := range map[string]string{
		"1m": "*/1 * * * *", "15m": "*/15 * * * *", "60m": "0 */1 * * *", "120m": "0 */2 * * *",
		"1h": "0 */1 * * *", "12h": "0 */12 * * *", "24h": "0 0 * * *", "1440m": "",
		"7m": "", "5h": "", "30s": "", "1h30m": "", "0m": "", "0h": "", "": "", "-5m": "", "999h": "",
	} {
		if got := intervalFields(interval); got != want {
			t.Errorf("%q: %q, want %q", interval, got, want)
		}
	}
}

// supervisord expands values with Python's operator %.
func TestExpand(t *testing.T) {
	s := &supervisord{
		document: newDocument(), src: &source{dir: "/d", host: fakeHost(nil)},
		literals: map[string]string{"L": "{l}"},
	}
	vars := s.common("p", "g")
	vars["process_num"] = number(7)
	for value, want := range map[string]string{
		"a": "a", "%%": "%", "%(program_name)s_%(group_name)s": "p_g", "%(here)s/x": "/d/x",
		"80%(process_num)02d": "8007", "%(process_num)d": "7", "%(process_num)s": "7",
		"%(process_num)3d|": "  7|", "%(process_num)-3d|": "7  |", "%(ENV_HOME)s": "${HOME}",
		"%(ENV_NONE)s": "${NONE:-}", "%(ENV_L)s": "{{l}", "$x": "$$x",
	} {
		got, err := s.expand(value, vars)
		if err != nil || got.argument() != want {
			t.Errorf("%q: %q, %v, want %q", value, got.argument(), err, want)
		}
	}
	for _, value := range []string{
		"%", "%a", "%(", "%(x)s", "%(program_name)", "100% a", "%(ENV_a-b)s", "%(process_num)x",
	} {
		if got, err := s.expand(value, vars); err == nil {
			t.Errorf("%q: %q", value, got.argument())
		}
	}
}
