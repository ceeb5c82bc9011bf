package lifecycle

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// FuzzBudgetOfRecord starts from an arbitrary record and applies events: a worker neither waits forever, nor is
// started more often than its budget allows.
func FuzzBudgetOfRecord(f *testing.F) {
	sound := []byte{byte(EvBegin), byte(EvReady), byte(EvExited), byte(EvRetry), byte(EvReady), byte(EvExited)}
	f.Add(int64(200*time.Millisecond), int64(time.Hour), int64(time.Hour), int64(2*time.Hour), int64(0), []byte{},
		int64(2*time.Hour), true, sound)
	f.Add(int64(-1), int64(-1), int64(-1), int64(-1), int64(-1), []byte(strings.Repeat("\xff", 16)),
		int64(time.Hour), true, sound)
	f.Add(int64(1<<62), int64(1<<62), int64(1<<62), int64(1<<62), int64(1<<62), []byte(strings.Repeat("\x7f", 32)),
		int64(time.Hour), true, sound)
	tries := []byte{byte(EvBegin), byte(EvRetry), byte(EvExited), byte(EvRetry), byte(EvReady), byte(evSteady)}
	f.Add(int64(0), int64(time.Hour), int64(0), int64(2*time.Hour), int64(20*time.Minute), []byte{},
		int64(2*time.Hour), true, tries)
	f.Fuzz(func(t *testing.T, backoff, readyClock, readySince, retryAt, failedWait int64, spent []byte, now int64,
		sameBoot bool, events []byte,
	) {
		p := Policy{missed: 3, RestartPolicy: unit.RestartPolicy{
			Mode: unit.RestartAlways, Backoff: 100 * time.Millisecond, MaxBackoff: 30 * time.Second, Factor: 2,
			Budget: unit.RestartBudget{Restarts: 3, Window: 5 * time.Minute}, RetryFailed: 5 * time.Minute,
		}}
		const century = int64(100 * 365 * 24 * time.Hour)
		clock := time.Duration(max(0, now%century)) // uptime of a machine
		record := records.RestartHistory{
			Backoff: time.Duration(backoff), ReadyClock: time.Duration(readyClock),
			ReadySince: time.Duration(readySince), RetryAt: time.Duration(retryAt), BootID: "another",
			FailedWait: time.Duration(failedWait),
		}
		if sameBoot {
			record.BootID = "this"
		}
		for ; len(spent) >= 8 && len(record.Spent) < 8; spent = spent[8:] {
			record.Spent = append(record.Spent, time.Duration(binary.BigEndian.Uint64(spent)))
		}
		s := State{Wanted: true, Status: records.StatusBackoff, History: SinceBoot(record, "this", clock, p)}
		if failedWait != 0 {
			s.Status = records.StatusFailed
		}
		check := func(what string) {
			t.Helper()
			b := s.History
			switch {
			case b.Backoff < 0 || b.Backoff > p.MaxBackoff:
				t.Fatalf("%s: backoff %s", what, b.Backoff)
			case b.FailedWait < 0 || b.FailedWait > maxFailedWait:
				t.Fatalf("%s: the failed worker waits for %s", what, b.FailedWait)
			case b.RetryAt < 0 || b.RetryAt > clock+max(p.MaxBackoff, b.FailedWait):
				t.Fatalf("%s: it is %s, retry at %s of a failed worker that waits for %s",
					what, clock, b.RetryAt, b.FailedWait)
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
		restarts, since := 0, s.History.ReadyClock
		for i, kind := range events[:min(len(events), 100)] {
			e := Event{Kind: EventKind(kind) % (EvMemory + 1), Away: kind&0x80 != 0, Chance: float64(kind) / 256}
			clock += time.Duration(i%7) * time.Second
			before, failed, status := s.Restarts, s.History.FailedWait, s.Status
			var do Action
			s, do = Next(s, e, p, clock)
			if do == ActStart {
				s.Slot = Occupied
			}
			check("after an event")
			if do == ActBackOff && s.History.RetryAt < clock-p.MaxBackoff-s.History.FailedWait {
				t.Fatalf("it waits at %s until %s", clock, s.History.RetryAt)
			}
			if status != s.Status && s.Status == records.StatusFailed && s.History.RetryAt <= clock {
				t.Fatalf("it has failed and is never tried again: %+v", s)
			}
			refilled := failed != 0 && s.History.FailedWait == 0 // it was ready for a minute
			if e.Kind == evWindowPassed || e.Kind == EvReplace || refilled {
				restarts, since = 0, s.History.ReadyClock
			}
			if restarts += int(s.Restarts - before); restarts > p.Budget.Restarts &&
				s.History.ReadyClock-since < p.Budget.Window {
				t.Fatalf("%d restarts within %s of being ready", restarts, s.History.ReadyClock-since)
			}
		}
	})
}
