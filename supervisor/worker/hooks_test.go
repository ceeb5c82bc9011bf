package worker

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/supervisor/launcher"
)

// appending is an instance that only appends to its log.
type appending struct{ launcher.Instance }

func (appending) AppendsOnly(context.Context, string) (bool, error) { return true, nil }

// A log is not collapsed under a command, whose descriptors nobody looks at.
func TestLogMayHaveAnotherWriterWhileAHookRuns(t *testing.T) {
	var s hooks
	only := appendsOnly(appending{}, &s, "worker.log")
	for _, want := range []bool{true, false, true} {
		shown := "stop.command ./bye"
		if s.shown.Store(&shown); want {
			s.shown.Store(nil)
		}
		if got, err := only(t.Context()); got != want || err != nil {
			t.Errorf("only appended to: %t, %v, want %t", got, err, want)
		}
	}
}

func TestExitVariables(t *testing.T) {
	for _, c := range []struct {
		exit identity.Exit
		want []string
	}{
		{identity.Exit{Source: identity.ExitUnknown}, nil},
		{identity.Exit{Source: identity.ExitWait}, []string{"HSU_EXIT_CODE=0"}},
		{identity.Exit{Source: identity.ExitPidfd, Code: 3}, []string{"HSU_EXIT_CODE=3"}},
		{identity.Exit{Source: identity.ExitStat, Signal: syscall.SIGKILL}, []string{"HSU_EXIT_SIGNAL=SIGKILL"}},
	} {
		if got := exitVariables(c.exit); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %q, want %q", c.exit, got, c.want)
		}
	}
}

// A failed worker is tried again by the act that its reason names.
func TestNextAfterFailure(t *testing.T) {
	const before, other = "start.before: exit code 3", "restart budget 10/5m used up: exited with code 3"
	for _, c := range []struct {
		reason  string
		retried bool
		want    string // at the end, after what holds for all
	}{
		{before, true, ""},
		{before, false, ""},
		{other, true, "; without a change of its unit or executable, it is not tried before its wait is over"},
		{other, false, "; without a change of its unit or executable, it is not tried again"},
	} {
		_, got, found := strings.Cut(NextAfterFailure(c.reason, c.retried), `"systemctl restart hsu-master"`)
		if !found || got != c.want {
			t.Errorf("%q, retried %t: the text ends with %q, want %q", c.reason, c.retried, got, c.want)
		}
	}
}

func TestFailedBefore(t *testing.T) {
	for reason, want := range map[string]bool{
		"start.before: exit code 3":                                 true,
		"restart budget 10/5m used up: start.before: exit code 3":   true,
		"restart budget 10/5m used up: exited with code 3":          false,
		"worker path: stat start.before: no such file or directory": false,
	} {
		if got := failedBefore(reason); got != want {
			t.Errorf("%q: %t, want %t", reason, got, want)
		}
	}
}
