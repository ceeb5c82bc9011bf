package identity

import (
	"strings"
	"syscall"
	"testing"
)

func TestExitStrings(t *testing.T) {
	var all []string
	for _, e := range []Exit{
		{},
		{Code: 3, Source: ExitWait},
		{Signal: syscall.SIGKILL, Source: ExitStat},
	} {
		all = append(all, e.String())
	}
	if got, want := strings.Join(all, ", "),
		"exited with an unknown code, exited with code 3, killed by SIGKILL"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
