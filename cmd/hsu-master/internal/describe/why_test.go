package describe

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
)

// threeAM is the present of these tests.
var threeAM = time.Date(2026, 2, 3, 3, 12, 16, 0, time.Local)

func before(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(threeAM.Add(-d)) }

func after(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(threeAM.Add(d)) }

// inspected returns a wanted worker that has been in its status for four seconds.
func inspected(status records.Status, change func(in *adminpb.Inspection, w *adminpb.Worker)) *adminpb.Inspection {
	in := &adminpb.Inspection{
		Worker: &adminpb.Worker{
			Id: "web-0", Unit: "web", Desired: string(records.DesiredRunning), Status: string(status),
		},
		Since: before(4 * time.Second),
		Policy: &adminpb.Inspection_Policy{
			Restart: "always", Restarts: 10, Spent: 3, Window: durationpb.New(5 * time.Minute),
			StartTimeout: durationpb.New(30 * time.Second), StopGrace: durationpb.New(10 * time.Second),
		},
	}
	change(in, in.GetWorker())
	return in
}

type change = func(in *adminpb.Inspection, w *adminpb.Worker)

// Each status has its reason, what happens next and when, and the command that helps.
func TestWhyOfEachStatus(t *testing.T) {
	stopped := func(in *adminpb.Inspection, w *adminpb.Worker) { w.Desired = string(records.DesiredStopped) }
	for name, test := range map[string]struct {
		status records.Status
		change change
		want   Explanation
	}{
		"starting": {
			records.StatusStarting, func(_ *adminpb.Inspection, w *adminpb.Worker) {
				w.WaitingFor, w.StartedAt = "port 40001: connection refused", before(4*time.Second)
			},
			Explanation{
				"waits for port 40001: connection refused",
				"is stopped at 03:12:42, in 26s, if it is not ready by then; 7 restarts left within 5m, then failed",
				"hsu-master worker logs web-0",
			},
		},
		"running": {
			records.StatusRunning, func(_ *adminpb.Inspection, w *adminpb.Worker) { w.Ready = true },
			Explanation{"it is well", "goes on", ""},
		},
		"running, not ready": {
			records.StatusRunning, func(*adminpb.Inspection, *adminpb.Worker) {},
			Explanation{"it has not passed a check of this master yet", "goes on", ""},
		},
		"outdated": {
			records.StatusRunning, func(in *adminpb.Inspection, w *adminpb.Worker) {
				w.Ready, w.Outdated, in.Outdated = true, true, []string{"executable", "environment"}
			},
			Explanation{
				"it is well; outdated: executable, environment", "goes on as it is until it is restarted",
				"hsu-master worker restart web-0",
			},
		},
		"unhealthy": {
			records.StatusUnhealthy, func(_ *adminpb.Inspection, w *adminpb.Worker) {
				w.Reason = "no answer to Ping: timeout"
			},
			Explanation{
				"no answer to Ping: timeout",
				"no calls until it passes its checks; restarted if it stays silent and idle",
				"hsu-master worker logs web-0  or: hsu-master worker restart web-0",
			},
		},
		"stopping, then started": {
			records.StatusStopping, func(_ *adminpb.Inspection, w *adminpb.Worker) {
				w.Reason = "memory 512MiB is above memory_restart 480MiB"
			},
			Explanation{
				"memory 512MiB is above memory_restart 480MiB",
				"is killed at 03:12:22, in 6s, if it has not ended by then; then it is started again",
				"hsu-master worker logs web-0",
			},
		},
		"stopping by an operator": {
			records.StatusStopping, func(in *adminpb.Inspection, w *adminpb.Worker) {
				stopped(in, w)
				in.Events = []*adminpb.Event{
					{Time: before(2 * time.Second), Type: "scale", Operator: &adminpb.Operator{Uid: 7}},
					{
						Time: before(4 * time.Second), Type: "stop",
						Operator: &adminpb.Operator{Uid: 1000, Command: "worker stop web-0"},
					},
				}
			},
			Explanation{
				"user 1000, 03:12:12: worker stop web-0",
				"is killed at 03:12:22, in 6s, if it has not ended by then; then it stays stopped",
				"hsu-master worker logs web-0",
			},
		},
		"stopped by an operator before all events that are shown": {
			records.StatusStopped, func(in *adminpb.Inspection, w *adminpb.Worker) {
				stopped(in, w)
				w.StoppedBy = &adminpb.Operator{Uid: 1000, Command: "worker stop web-0"}
			},
			Explanation{
				"user 1000: worker stop web-0", "stays stopped, also over restarts of the master and reboots",
				"hsu-master worker start web-0",
			},
		},
		"stopped by an operator": {
			records.StatusStopped, stopped,
			Explanation{
				"an operator has stopped it", "stays stopped, also over restarts of the master and reboots",
				"hsu-master worker start web-0",
			},
		},
		"surplus": {
			records.StatusStopped, func(in *adminpb.Inspection, _ *adminpb.Worker) { in.Retired = true },
			Explanation{
				"it is surplus: fewer replicas are wanted", "is forgotten", "hsu-master worker scale web=N",
			},
		},
		"of a unit that is being disabled": {
			records.StatusStopping, func(in *adminpb.Inspection, w *adminpb.Worker) {
				stopped(in, w)
				in.Retired, w.Reason = true, string(lifecycle.UnitDisabled)
				in.Events = []*adminpb.Event{{
					Time: before(2 * time.Second), Type: "disable",
					Operator: &adminpb.Operator{Uid: 7, Command: "unit disable web"},
				}}
			},
			Explanation{
				"its unit was disabled: user 7, 03:12:14: unit disable web",
				"is killed at 03:12:22, in 6s, if it has not ended by then; then it is forgotten",
				"hsu-master unit enable web",
			},
		},
		"of a unit that its file disables": {
			records.StatusStopped, func(in *adminpb.Inspection, w *adminpb.Worker) {
				in.Retired, w.Reason = true, string(lifecycle.UnitDisabled)
			},
			Explanation{"its unit was disabled", "is forgotten", "hsu-master unit enable web"},
		},
		"stopped with its master": {
			records.StatusStopped, func(*adminpb.Inspection, *adminpb.Worker) {},
			Explanation{"the master stopped it when it ended", "is started when the master is", ""},
		},
		"backoff": {
			records.StatusBackoff, func(_ *adminpb.Inspection, w *adminpb.Worker) {
				w.Reason, w.RetryAt = "exited with code 3", after(4*time.Second)
			},
			Explanation{
				"exited with code 3", "tries again at 03:12:20, in 4s; 7 restarts left within 5m, then failed",
				"mend it; hsu-master worker restart web-0  tries at once",
			},
		},
		"backoff, the last time": {
			records.StatusBackoff, func(in *adminpb.Inspection, w *adminpb.Worker) {
				w.Reason, w.RetryAt, in.Policy.Spent = "exited with code 3", after(4*time.Second), 10
			},
			Explanation{
				"exited with code 3", "tries again at 03:12:20, in 4s; the next failure makes it failed",
				"mend it; hsu-master worker restart web-0  tries at once",
			},
		},
		"failed": {
			records.StatusFailed, func(_ *adminpb.Inspection, w *adminpb.Worker) {
				w.Reason, w.RetryAt = "restart budget 10/5m used up: killed by SIGKILL", after(5*time.Minute)
			},
			Explanation{
				"restart budget 10/5m used up: killed by SIGKILL", "tries once more at 03:17:16, in 5m",
				"mend it, then: hsu-master worker restart web-0",
			},
		},
		"given up": {
			records.StatusFailed, func(_ *adminpb.Inspection, w *adminpb.Worker) { w.Reason = "exited with code 1" },
			Explanation{
				"exited with code 1", "is not tried again by itself", "mend it, then: hsu-master worker restart web-0",
			},
		},
		"waiting": {
			records.StatusWaiting, func(_ *adminpb.Inspection, w *adminpb.Worker) {
				w.Reason = "db: db-0 has failed: it left"
			},
			Explanation{
				"waits for db: db-0 has failed: it left", "starts as soon as that is met", "hsu-master why db",
			},
		},
		"scheduled": {
			records.StatusScheduled, func(_ *adminpb.Inspection, w *adminpb.Worker) {
				w.NextDueAt = after(24 * time.Hour)
			},
			Explanation{
				"it has not run yet", "runs at 2026-02-04 03:12:16, in 24h",
				"hsu-master worker start web-0  runs it now",
			},
		},
		"scheduled after a failure": {
			records.StatusScheduled, func(_ *adminpb.Inspection, w *adminpb.Worker) {
				w.NextDueAt, w.LastDueAt, w.Reason = after(time.Hour), before(time.Hour), "exited with code 2"
			},
			Explanation{
				"its last run, due 02:12:16, failed: exited with code 2", "runs at 04:12:16, in 1h",
				"hsu-master worker start web-0  runs it now",
			},
		},
		"completed": {
			records.StatusCompleted, func(in *adminpb.Inspection, w *adminpb.Worker) {
				w.Reason, in.Policy.Restart = "exited with code 0", "on-failure"
			},
			Explanation{
				"exited with code 0", "is not started again: restart policy on-failure",
				"hsu-master worker start web-0  runs it again",
			},
		},
		"absent": {
			records.StatusAbsent, func(in *adminpb.Inspection, w *adminpb.Worker) {
				w.Unmanaged, w.Reason = true, "there is no /run/db.pid"
				in.Settings = []*adminpb.Inspection_Setting{{Key: "discover", Value: "pid file /run/db.pid"}}
			},
			Explanation{
				"there is no /run/db.pid", "is taken as soon as it is found",
				"start it with the program that it belongs to; it is found by pid file /run/db.pid",
			},
		},
		"unmanaged": {
			records.StatusRunning, func(_ *adminpb.Inspection, w *adminpb.Worker) { w.Unmanaged = true },
			Explanation{"its process was found; another program starts it", "is watched, never started or stopped", ""},
		},
		"held": {
			records.StatusUnhealthy, func(_ *adminpb.Inspection, w *adminpb.Worker) {
				w.Reason = lifecycle.HeldPrefix + "process 4711 cannot be verified"
			},
			Explanation{
				"process 4711 cannot be verified", "looks again each second; no second process is started meanwhile",
				"hsu-master worker inspect web-0  lists the processes",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := Explain(inspected(test.status, test.change), true, threeAM)
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(Explanation{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Without a master nothing happens, whatever the status is.
func TestWhyWithoutAMaster(t *testing.T) {
	in := inspected(records.StatusBackoff, func(in *adminpb.Inspection, w *adminpb.Worker) {
		in.Policy, w.Reason = nil, "exited with code 3"
	})
	want := Explanation{
		"exited with code 3", "nothing, until a master runs", "hsu-master run  or: systemctl start hsu-master",
	}
	if got := Explain(in, false, threeAM); got != want {
		t.Errorf("explain = %+v, want %+v", got, want)
	}
}

func TestExitCause(t *testing.T) {
	code := func(n int32) *adminpb.Exit { return &adminpb.Exit{Known: true, Code: &n} }
	signal := func(name string) *adminpb.Exit { return &adminpb.Exit{Known: true, Signal: &name} }
	for _, test := range []struct {
		exit   *adminpb.Exit
		reason string
		want   string
	}{
		{code(3), "exited with code 3", "exited with code 3"},
		{code(3), "", "exited with code 3"},
		{code(3), "exited with code 3: out of memory", "exited with code 3: out of memory"},
		{code(0), "fewer replicas are wanted", "fewer replicas are wanted (exited with code 0)"},
		{&adminpb.Exit{}, "", "exited with an unknown code"},
		{signal("SIGKILL"), "killed by SIGKILL", "killed by SIGKILL, which hsu-master did not send"},
		{signal("SIGSEGV"), "killed by SIGSEGV", "killed by SIGSEGV, a fault of the program"},
		{signal("SIGKILL"), "killed by SIGKILL: out of memory", "killed by SIGKILL: out of memory"},
		{signal("SIGTERM"), "memory 2MiB is above 1MiB", "memory 2MiB is above 1MiB (SIGTERM)"},
	} {
		if got := exitCause(&adminpb.Inspection_PastExit{Exit: test.exit, Reason: test.reason}, nil); got != test.want {
			t.Errorf("exitCause(%v, %q) = %q, want %q", test.exit, test.reason, got, test.want)
		}
	}
}

// A signal that an operator has had sent is told from one of another program.
func TestExitBySignalOfAnOperator(t *testing.T) {
	events := []*adminpb.Event{{
		Type: "signal", Time: before(3 * time.Second), Detail: "SIGHUP to process 4711",
		Operator: &adminpb.Operator{Uid: 7, Command: "worker signal HUP web"},
	}}
	const foreign = ", which hsu-master did not send"
	for _, test := range []struct {
		signal string
		at     time.Duration // before now
		want   string
	}{
		{"SIGHUP", 2 * time.Second, ", sent by user 7: worker signal HUP web"},
		{"SIGTERM", 2 * time.Second, foreign},
		{"SIGHUP", 4 * time.Second, foreign}, // earlier than the signal
		{"SIGHUP", -time.Minute, foreign},    // it has survived the signal
	} {
		past := &adminpb.Inspection_PastExit{
			Exit: &adminpb.Exit{Signal: &test.signal, At: before(test.at)}, Reason: "killed by " + test.signal,
		}
		want := past.GetReason() + test.want
		if got := exitCause(past, events); got != want {
			t.Errorf("%s: %q, want %q", test.signal, got, want)
		}
	}
}

// The whole screen of a worker, as an operator sees it.
func TestWhyIsOneScreen(t *testing.T) {
	in := inspected(records.StatusBackoff, func(in *adminpb.Inspection, w *adminpb.Worker) {
		w.Reason, w.RetryAt, w.Restarts = "exited with code 3", after(4*time.Second), 5
		w.LastOutput = []string{"opening the database", "\x1b[31mno such file\x1b[0m"}
		w.Checks = []*adminpb.Check{{
			Use: "readiness", Probe: "http http://127.0.0.1:40001/health", Answer: "503 Service Unavailable",
			AnsweredAt: before(2 * time.Second), DueAt: after(3 * time.Second),
		}}
		w.Calls = &adminpb.Figures{Calls: 120, InFlight: 2, Failures: map[string]uint64{"UNAVAILABLE": 3}}
		in.Exits = []*adminpb.Inspection_PastExit{
			{Exit: &adminpb.Exit{Known: true, Code: new(int32(3)), At: before(4 * time.Second)}},
			{Exit: &adminpb.Exit{Known: true, Signal: new("SIGKILL"), At: before(48 * time.Hour)}},
		}
	})
	want := `web-0 is in backoff since 03:12:12, 4s ago
  why     exited with code 3
  next    tries again at 03:12:20, in 4s; 7 restarts left within 5m, then failed
  do      mend it; hsu-master worker restart web-0  tries at once
  budget  3 of 10 restarts within 5m spent; 5 in all
  exits   03:12:12  exited with code 3
          2026-02-01 03:12:16  killed by SIGKILL, which hsu-master did not send
  health  readiness missed 2s ago, asked again in 3s: http
          http://127.0.0.1:40001/health: 503 Service Unavailable
  calls   2 in flight, 120 ended, 3 failed
  output  | opening the database
          | \x1b[31mno such file\x1b[0m
`
	if diff := cmp.Diff(want, explained(render.Page{}, in, true, threeAM)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// On a terminal that is narrower, the same is said in more lines, and no word is cut.
func TestWhyOnANarrowTerminal(t *testing.T) {
	in := inspected(records.StatusBackoff, func(in *adminpb.Inspection, w *adminpb.Worker) {
		w.Reason = "start.before ./migrate --to latest: exited with code 3"
		w.RetryAt, w.Restarts = after(4*time.Second), 5
		w.LastOutput = []string{"opening the database", "no such file or directory: /var/lib/web/data", "it ends"}
		w.Checks = []*adminpb.Check{{
			Use: "readiness", Probe: "http http://127.0.0.1:40001/health", Answer: "503 Service Unavailable",
			AnsweredAt: before(2 * time.Second), DueAt: after(3 * time.Second),
		}}
		in.Exits = []*adminpb.Inspection_PastExit{
			{Exit: &adminpb.Exit{Known: true, Signal: new("SIGKILL"), At: before(48 * time.Hour)}},
		}
	})
	want := `web-0 is in backoff since 03:12:12, 4s
  ago
  why     start.before ./migrate --to
          latest: exited with code 3
  next    tries again at 03:12:20, in
          4s; 7 restarts left within 5m,
          then failed
  do      mend it; hsu-master worker
          restart web-0  tries at once
  budget  3 of 10 restarts within 5m
          spent; 5 in all
  exits   2026-02-01 03:12:16  killed by
          SIGKILL, which hsu-master did
          not send
  health  readiness missed 2s ago, asked
          again in 3s: http
          http://127.0.0.1:40001/health:
          503 Service Unavailable
  output  | opening the database
          | no such file or directory:
            /var/lib/web/data
          | it ends
`
	if diff := cmp.Diff(want, explained(render.NewPage(40), in, true, threeAM)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	words := strings.Fields(explained(render.NewPage(200), in, true, threeAM))
	for width := 1; width <= 200; width++ {
		text := explained(render.NewPage(width), in, true, threeAM)
		if diff := cmp.Diff(words, strings.Fields(text)); diff != "" && width < render.PageWidth {
			t.Errorf("%d columns (-want +got):\n%s", width, diff)
		}
		for line := range strings.Lines(text) {
			if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > max(width, 40) {
				t.Errorf("%d columns: line %q", width, line)
			}
		}
	}
}

// Whatever a worker says, its explanation fits a terminal and cannot control it.
func TestWhyFitsATerminal(t *testing.T) {
	long := strings.Repeat("a long word \x1b[2J and "+strings.Repeat("x", 100)+" ", 10)
	for _, status := range []records.Status{
		records.StatusStarting, records.StatusRunning, records.StatusUnhealthy, records.StatusStopping,
		records.StatusStopped, records.StatusBackoff, records.StatusFailed, records.StatusCompleted,
		records.StatusWaiting, records.StatusScheduled, records.StatusAbsent, "a status of a later release",
	} {
		in := inspected(status, func(in *adminpb.Inspection, w *adminpb.Worker) {
			w.Id, w.Reason, w.WaitingFor, w.Pid = strings.Repeat("w", 70), long, long, 4711
			for i := range 20 {
				w.LastOutput = append(w.LastOutput, fmt.Sprint(i, long))
				in.Exits = append(in.Exits, &adminpb.Inspection_PastExit{Exit: &adminpb.Exit{}, Reason: long})
			}
			w.Unenforced = []string{"limits.memory: " + long}
			w.Checks = []*adminpb.Check{{Use: "readiness", Probe: long, Answer: long}, {Use: "liveness", Probe: long}}
			w.Calls = &adminpb.Figures{Calls: 1 << 60, Latency: &adminpb.Latency{Counts: []uint64{1}}}
		})
		text := explained(render.Page{}, in, true, threeAM)
		lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		if len(lines) > screen {
			t.Errorf("%s: %d lines", status, len(lines))
		}
		for _, line := range lines {
			if utf8.RuneCountInString(line) > render.PageWidth || strings.ContainsRune(line, '\x1b') {
				t.Errorf("%s: line %q", status, line)
			}
		}
		if !strings.Contains(lines[len(lines)-1], "| 19") {
			t.Errorf("%s: the last line of the output is missing:\n%s", status, text)
		}
	}
}

func TestWhyOfAUnitWithoutWorkers(t *testing.T) {
	for want, u := range map[string]*adminpb.Unit{
		"it is disabled\n  do      hsu-master unit enable web":   {Name: "web", Disabled: true},
		"it is disabled\n  do      hsu-master unit enable web\n": {Name: "web", Disabled: true, Replicas: 2},
		"scaled it to 0, the configuration says 2":               {Name: "web", Replicas: 2, Scale: new(int32(0))},
		"not in the configuration any more":                      {Name: "web", Retired: true},
		"replicas: 0":                                            {Name: "web"},
	} {
		if got := withoutWorkers(render.Page{}, u, true); !strings.Contains(got, want) {
			t.Errorf("%v: %q, want %q in it", u, got, want)
		}
	}
	got := withoutWorkers(render.Page{}, &adminpb.Unit{Name: "web"}, false)
	if want := "replicas: 0 or enabled: false"; !strings.Contains(got, want) {
		t.Errorf("without a master: %q, want %q in it", got, want)
	}
}
