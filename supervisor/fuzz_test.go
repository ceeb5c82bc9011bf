package supervisor

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/core-tools/hsu-master/store"
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

// FuzzBudgetOfRecord starts from an arbitrary record and applies events: a worker neither waits forever, nor is
// started more often than its budget allows.
func FuzzBudgetOfRecord(f *testing.F) {
	sound := []byte{byte(evBegin), byte(evReady), byte(evExited), byte(evRetry), byte(evReady), byte(evExited)}
	f.Add(int64(200*time.Millisecond), int64(time.Hour), int64(time.Hour), int64(2*time.Hour), []byte{},
		int64(2*time.Hour), true, sound)
	f.Add(int64(-1), int64(-1), int64(-1), int64(-1), []byte(strings.Repeat("\xff", 16)), int64(time.Hour), true, sound)
	f.Add(int64(1<<62), int64(1<<62), int64(1<<62), int64(1<<62), []byte(strings.Repeat("\x7f", 32)),
		int64(time.Hour), true, sound)
	f.Fuzz(func(t *testing.T, backoff, readyClock, readySince, retryAt int64, spent []byte, now int64,
		sameBoot bool, events []byte,
	) {
		p := policy{missed: 3, RestartPolicy: RestartPolicy{
			Mode: RestartAlways, Backoff: 100 * time.Millisecond, MaxBackoff: 30 * time.Second,
			Budget: RestartBudget{3, 5 * time.Minute},
		}}
		const century = int64(100 * 365 * 24 * time.Hour)
		clock := time.Duration(max(0, now%century)) // uptime of a machine
		record := store.RestartHistory{
			Backoff: time.Duration(backoff), ReadyClock: time.Duration(readyClock),
			ReadySince: time.Duration(readySince), RetryAt: time.Duration(retryAt), BootID: "another",
		}
		if sameBoot {
			record.BootID = "this"
		}
		for ; len(spent) >= 8 && len(record.Spent) < 8; spent = spent[8:] {
			record.Spent = append(record.Spent, time.Duration(binary.BigEndian.Uint64(spent)))
		}
		s := state{wanted: true, status: store.StatusBackoff, history: sinceBoot(record, "this", clock, p)}
		check := func(what string) {
			t.Helper()
			b := s.history
			switch {
			case b.Backoff < 0 || b.Backoff > p.MaxBackoff:
				t.Fatalf("%s: backoff %s", what, b.Backoff)
			case b.RetryAt < 0 || b.RetryAt > clock+p.MaxBackoff:
				t.Fatalf("%s: it is %s, retry at %s", what, clock, b.RetryAt)
			case b.ReadySince < 0 || b.ReadySince > clock:
				t.Fatalf("%s: it is %s, ready since %s", what, clock, b.ReadySince)
			case b.ReadyClock < 0:
				t.Fatalf("%s: it was ready for %s", what, b.ReadyClock)
			}
			for _, mark := range b.Spent {
				if mark < 0 || mark > b.ReadyClock {
					t.Fatalf("%s: it was ready for %s, a restart at %s of that", what, b.ReadyClock, mark)
				}
			}
		}
		check("as recorded")
		restarts, since := 0, s.history.ReadyClock
		for i, kind := range events[:min(len(events), 100)] {
			e := event{kind: eventKind(kind) % (evShutdown + 1), away: kind&0x80 != 0, chance: float64(kind) / 256}
			clock += time.Duration(i%7) * time.Second
			before := s.restarts
			var do action
			s, do = next(s, e, p, clock)
			if do == actStart {
				s.slot = occupied
			}
			check("after an event")
			if do == actBackOff && s.history.RetryAt < clock-p.MaxBackoff {
				t.Fatalf("it waits at %s until %s", clock, s.history.RetryAt)
			}
			if e.kind == evWindowPassed {
				restarts, since = 0, s.history.ReadyClock
			}
			if restarts += int(s.restarts - before); restarts > p.Budget.Restarts &&
				s.history.ReadyClock-since < p.Budget.Window {
				t.Fatalf("%d restarts within %s of being ready", restarts, s.history.ReadyClock-since)
			}
		}
	})
}

// FuzzLastOutput reads the output of a worker, which may contain anything.
func FuzzLastOutput(f *testing.F) {
	for _, s := range []string{
		"", "\n\n\n", "one line", "first\nsecond\n", strings.Repeat("line\n", 2000), strings.Repeat("x", 5000),
		"\xff\xfe\n\x00\n", strings.Repeat("\xe2\x82", 2047) + "\xac\n", "a\r\nb\r\n",
	} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), "worker.log")
	f.Fuzz(func(t *testing.T, written []byte) {
		if err := os.WriteFile(path, written, 0o600); err != nil {
			t.Fatal(err)
		}
		lines := WorkerInfo{LogPath: path}.LastOutput()
		if len(lines) > lastOutputLines || len(strings.Join(lines, "\n")) > 3*lastOutputBytes {
			t.Errorf("%d lines of %d bytes", len(lines), len(strings.Join(lines, "\n")))
		}
		for _, line := range lines {
			if !utf8.ValidString(line) || strings.Contains(line, "\n") {
				t.Errorf("line %q", line)
			}
		}
		if len(written) > lastOutputBytes {
			return
		}
		// The whole file was read.
		want := strings.Split(strings.TrimRight(strings.ToValidUTF8(string(written), "\uFFFD"), "\n"), "\n")
		want = want[max(0, len(want)-lastOutputLines):]
		if got, want := strings.Join(lines, "\n"), strings.Join(want, "\n"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}
