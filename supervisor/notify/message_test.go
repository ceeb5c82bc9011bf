package notify

import (
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestApply(t *testing.T) {
	before, now := time.Unix(1_000, 0), time.Unix(2_000, 0)
	for name, test := range map[string]struct {
		state    State
		datagram string
		want     State
	}{
		"ready":             {State{}, "READY=1", State{Ready: true, Heard: true}},
		"ready, with lines": {State{}, "\nREADY=1\n\n", State{Ready: true, Heard: true}},
		"watchdog": {
			State{Watchdog: before, Failed: true}, "WATCHDOG=1\n", State{Watchdog: now, Heard: true},
		},
		"failure":    {State{Watchdog: before}, "WATCHDOG=trigger", State{Watchdog: before, Failed: true, Heard: true}},
		"stopping":   {State{Ready: true}, "STOPPING=1\nSTATUS=bye", State{Stopping: true, Status: "bye", Heard: true}},
		"once more":  {State{Stopping: true}, "READY=1", State{Ready: true, Heard: true}},
		"reloading":  {State{Ready: true}, "RELOADING=1\nMONOTONIC_USEC=7", State{Ready: true, Heard: true}},
		"other":      {State{}, "MAINPID=1\nFDSTORE=1\nEXTEND_TIMEOUT_USEC=9\nBARRIER=1", State{Heard: true}},
		"values":     {State{}, "READY=0\nREADY=\nREADY=11\nSTOPPING=0\nWATCHDOG=2", State{Heard: true}},
		"no lines":   {State{}, "READY\n=1\nready=1\n READY=1\nREADY=1 ", State{Heard: true}},
		"equals":     {State{}, "STATUS=a=b", State{Status: "a=b", Heard: true}},
		"empty text": {State{Status: "a"}, "STATUS=", State{Heard: true}},
		"controls":   {State{}, "STATUS=\x1b[31mred\x00\t\u0085end\r", State{Status: "[31mredend", Heard: true}},
		"bytes":      {State{}, "STATUS=a\xffb", State{Status: "a\uFFFDb", Heard: true}},
		"long text": {
			State{}, "STATUS=" + strings.Repeat("ä", 150), State{Status: strings.Repeat("ä", 100), Heard: true},
		},
		"cut inside": {
			State{}, "STATUS=x" + strings.Repeat("ä", 150), State{Status: "x" + strings.Repeat("ä", 99), Heard: true},
		},
	} {
		if diff := cmp.Diff(test.want, test.state.Apply([]byte(test.datagram), now)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func FuzzApply(f *testing.F) {
	for _, seed := range []string{
		"READY=1\nSTATUS=up", "STOPPING=1\nWATCHDOG=trigger", "=\n==",
		"STATUS=\xff\xc3\x1b[1m" + strings.Repeat("é", 120),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, datagram []byte) {
		now := time.Unix(1, 0)
		s := State{}.Apply(datagram, now)
		if !s.Heard || s.Ready && s.Stopping || s.Failed && !strings.Contains(string(datagram), "WATCHDOG=trigger") {
			t.Errorf("%+v", s)
		}
		if len(s.Status) > MaxStatus || !utf8.ValidString(s.Status) ||
			strings.ContainsFunc(s.Status, unicode.IsControl) {
			t.Errorf("the status is %q", s.Status)
		}
		if again := s.Apply(datagram, now); again != s && !s.Ready && !s.Stopping {
			t.Errorf("applied twice: %+v, once: %+v", again, s)
		}
	})
}
