package unit

import (
	"errors"
	"math"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/identity"
)

func TestRestartPolicyThatSetsNothing(t *testing.T) {
	u := Spec{}.WithDefaults()
	if p := u.Restart; p.Factor != 2 || p.RetryFailed != 5*time.Minute || !slices.Equal(p.SuccessCodes, []int{0}) {
		t.Errorf("%+v, want the factor 2, another try after 5m, and 0 as the only success", p)
	}
	if u.Health.BusyLimit != 5*time.Minute || u.Health.Readiness.Passes != 1 {
		t.Errorf("busy limit %s and %d passes, want 5m and 1", u.Health.BusyLimit, u.Health.Readiness.Passes)
	}
	u.Restart.RetryFailed, u.Health.BusyLimit, u.Restart.SuccessCodes = -1, -1, []int{}
	u = u.WithDefaults()
	if u.Restart.RetryFailed != -1 || u.Health.BusyLimit != -1 || len(u.Restart.SuccessCodes) != 0 {
		t.Errorf("%+v: defaults replace what is set", u)
	}
}

func TestFaultsOfARestartPolicy(t *testing.T) {
	for want, p := range map[string]RestartPolicy{
		"":                 {Factor: 1, SuccessCodes: []int{0, 255}},
		"factor 0.5":       {Factor: 0.5},
		"factor -1":        {Factor: -1},
		"factor NaN":       {Factor: math.NaN()},
		"success code 256": {SuccessCodes: []int{0, 256}},
		"success code -1":  {SuccessCodes: []int{-1}},
	} {
		err := errors.Join(p.check()...)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", p, err, want)
		}
	}
}

func TestOnlyTheExitCodesOfTheUnitAreASuccess(t *testing.T) {
	p := RestartPolicy{SuccessCodes: []int{0, 7}}
	for _, test := range []struct {
		exit identity.Exit
		want bool
	}{
		{identity.Exit{Code: 0, Source: identity.ExitWait}, true},
		{identity.Exit{Code: 7, Source: identity.ExitPidfd}, true},
		{identity.Exit{Code: 1, Source: identity.ExitWait}, false},
		{identity.Exit{Signal: syscall.SIGTERM, Source: identity.ExitWait}, false},
		{identity.Exit{}, false}, // unknown
	} {
		if got := p.Succeeded(test.exit); got != test.want {
			t.Errorf("%s: %t", test.exit, got)
		}
	}
}
