package logging_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/core-tools/hsu-core/go/logging"
)

// The constants are untyped, so that they fit any numeric level type of a caller.
var (
	_ int8    = logging.LogLevelDebug
	_ uint16  = logging.LogLevelInfo
	_ float64 = logging.LogLevelWarn
	_ int     = logging.LogLevelError
)

func TestLevels(t *testing.T) {
	got := []int{logging.LogLevelDebug, logging.LogLevelInfo, logging.LogLevelWarn, logging.LogLevelError}
	if want := []int{0, 1, 2, 3}; !slices.Equal(got, want) {
		t.Errorf("levels = %v, want %v", got, want)
	}
}

// record returns funcs that write "name:message" to the slice.
func record(to *[]string) logging.LogFuncs {
	under := func(name string) logging.LogFunc {
		return func(format string, args ...any) { *to = append(*to, name+":"+fmt.Sprintf(format, args...)) }
	}
	return logging.LogFuncs{Debugf: under("debug"), Infof: under("info"), Warnf: under("warn"), Errorf: under("error")}
}

func logAll(l logging.Logger) {
	l.Debugf("d %d", 1)
	l.Infof("i %s", "x")
	l.Warnf("100%%")
	l.Errorf("%[2]s %[1]s", "a", "b")
	for level := -1; level <= 4; level++ {
		l.LogLevelf(level, "level %d", level)
	}
}

func TestEachLevelReachesItsFunc(t *testing.T) {
	var got []string
	logAll(logging.NewLogger("p.", record(&got)))
	want := []string{
		"debug:p.d 1", "info:p.i x", "warn:p.100%", "error:p.b a",
		"debug:p.level -1", "debug:p.level 0", "info:p.level 1", "warn:p.level 2", "error:p.level 3", "error:p.level 4",
	}
	if !slices.Equal(got, want) {
		t.Errorf("logged\n%q, want\n%q", got, want)
	}
}

func TestLogLevelfWins(t *testing.T) {
	var got, others []string
	funcs := record(&others)
	funcs.LogLevelf = func(level int, format string, args ...any) {
		got = append(got, fmt.Sprint(level, ":", fmt.Sprintf(format, args...)))
	}
	logAll(logging.NewLogger("", funcs))
	want := []string{
		"0:d 1", "1:i x", "2:100%", "3:b a",
		"0:level -1", "0:level 0", "1:level 1", "2:level 2", "3:level 3", "3:level 4",
	}
	if !slices.Equal(got, want) || others != nil {
		t.Errorf("logged\n%q and %q, want\n%q and nothing", got, others, want)
	}
}

func TestPrefixIsNoFormat(t *testing.T) {
	var got []string
	funcs := record(&got)
	for _, prefix := range []string{"100% ", "%s", "%d%!", "%%", "%[2]s"} {
		got = nil
		l := logging.NewLogger(prefix, funcs)
		l.Infof("plain")
		l.Infof("%s", "arg")
		l.LogLevelf(logging.LogLevelWarn, "%d", 7)
		want := []string{"info:" + prefix + "plain", "info:" + prefix + "arg", "warn:" + prefix + "7"}
		if !slices.Equal(got, want) {
			t.Errorf("prefix %q logged %q, want %q", prefix, got, want)
		}
	}
}

func TestNilFuncsAreSafe(t *testing.T) {
	logAll(logging.NewLogger("%p", logging.LogFuncs{}))

	var got []string
	logAll(logging.NewLogger("", logging.LogFuncs{Warnf: record(&got).Warnf}))
	if want := []string{"warn:100%", "warn:level 2"}; !slices.Equal(got, want) {
		t.Errorf("logged %q, want %q", got, want)
	}
}
