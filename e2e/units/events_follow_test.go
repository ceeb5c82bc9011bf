//go:build e2e && linux

package units

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/supervisor/history"
)

// A follower gets each event once and in order, over a crash of the master, and so does a script that asks again.
func TestEventsAreFollowedOverACrash(t *testing.T) {
	t.Parallel()
	s := newEventSite(t, "")
	m := s.start()
	s.awaitUp(2)
	follower := s.Exec(harness.Programs.Master, nil, "events", "-f", "-n", "1000", "--json", "--state-dir", s.State)
	seen := func() (lines []history.Line) {
		for raw := range strings.Lines(follower.Log()) {
			var line history.Line
			if strings.HasSuffix(raw, "\n") && json.Unmarshal([]byte(raw), &line) == nil {
				lines = append(lines, line)
			}
		}
		return lines
	}
	await := func(kind string) {
		t.Helper()
		harness.WaitFor(t, "the follower prints "+kind, func() error {
			if !slices.ContainsFunc(seen(), func(l history.Line) bool { return l.Type == kind }) {
				return errors.New(follower.Log())
			}
			return nil
		})
	}
	await("master-started")
	m.Kill()
	if r := s.CLI("events", "--type", "started"); r.Code != 0 || strings.Count(r.Stdout, "\n") != 2 {
		t.Errorf("without a master: %+v", r)
	}
	m = s.start()
	await("master-crashed")
	if r := s.CLI("worker", "scale", "job=2"); r.Code != 0 {
		t.Fatalf("scale: %+v", r)
	}
	await("scale")
	harness.WaitFor(t, "the follower has all events", func() error {
		var all []history.Line
		for raw := range strings.Lines(s.CLI("events", "--json").Stdout) {
			var line history.Line
			if err := json.Unmarshal([]byte(raw), &line); err != nil {
				t.Fatalf("%q: %v", raw, err)
			}
			all = append(all, line)
		}
		same := func(a, b history.Line) bool { return a.Seq == b.Seq && a.Type == b.Type && a.Worker == b.Worker }
		if got := seen(); !slices.EqualFunc(got, all, same) {
			return fmt.Errorf("%+v, and events prints %+v", got, all)
		}
		for i, line := range all {
			if line.Seq != all[0].Seq+uint64(i) { //nolint:gosec // not negative
				t.Fatalf("event %d follows %d", line.Seq, all[i-1].Seq)
			}
			if o := line.Operator; line.Type == "scale" && (o == nil || int(o.UID) != os.Geteuid() ||
				!strings.HasPrefix(o.Command, "worker scale job=2")) {
				t.Fatalf("the operator is %+v", o)
			}
		}
		return nil
	})
	follower.Signal(syscall.SIGINT)
	follower.Wait()
	m.Stop()
	s.WantNothingLeft()
}
