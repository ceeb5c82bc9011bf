//go:build e2e && linux

package units

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/store"
)

// growing is a program that a descendant of makes grow by 64 MiB when the file "grow" is there. The next instance does
// not grow, because the file is gone.
const growing = `#!/bin/sh
until test -e grow; do sleep 0.02; done
rm grow
{ head -c 67108864 /dev/zero; exec sleep 1000000; } | tail -n 1
`

// usage is what "worker list --json" shows of a worker's processes.
type usage struct {
	Resident  int64    `json:"resident"`
	CPU       float64  `json:"cpu"`
	CPUShare  *float64 `json:"cpu_share"`
	OpenFiles *int     `json:"open_files"`
	Threads   int      `json:"threads"`
	Processes int      `json:"processes"`
}

// usageOf returns the usage of a worker, nil if it is absent.
func (s *site) usageOf(worker string) *usage {
	s.T.Helper()
	var list struct {
		Workers []struct {
			ID    string `json:"id"`
			Usage *usage `json:"usage"`
		} `json:"workers"`
	}
	if err := json.Unmarshal([]byte(s.CLI("worker", "list", "--json").Stdout), &list); err != nil {
		s.T.Fatal(err)
	}
	for _, w := range list.Workers {
		if w.ID == worker {
			return w.Usage
		}
	}
	s.T.Fatalf("no worker %s in %+v", worker, list)
	return nil
}

// A worker whose family grows is drained and started again, whatever its policy, and a change of the limit alone
// restarts nothing.
func TestKeyMemoryRestart(t *testing.T) {
	t.Parallel()
	file := `
defaults: {kind: managed, memory_restart: %s, start: {settle: 20ms}, restart: {policy: never}, stop: {grace: 5s}}
units:
  leak:
    command: [./program]
    working_dir: .
    stop: {command: [touch, drained]}
  run: {command: ["true"], schedule: "0 0 1 1 *"} # has no limit
`
	s := newSite(t, map[string]string{"program": growing, "hsu.yaml": fmt.Sprintf(file, "1GiB")})
	m := s.start()
	before := s.await("leak-0", "runs", up)
	s.write("grow", "")
	harness.WaitFor(t, "its family has grown", func() error {
		if u := s.usageOf("leak-0"); u == nil || u.Resident < 64<<20 || u.Processes < 3 {
			return fmt.Errorf("%+v", u)
		}
		return nil
	})
	s.write("hsu.yaml", fmt.Sprintf(file, "48MiB"))
	if out := s.CLI("reload").Stdout; !strings.Contains(out, "memory_restart") {
		t.Errorf("the reload does not name the key:\n%s", out)
	}
	if w := s.await("leak-0", "runs", up); w.PID != before.PID {
		t.Errorf("the reload restarted it: %+v", w)
	}
	after := s.await("leak-0", "is another process", func(w harness.Worker) bool {
		return up(w) && w.PID != before.PID
	})
	if after.Restarts != 1 {
		t.Errorf("%d restarts, want 1", after.Restarts)
	}
	if _, err := os.Stat(s.path("drained")); err != nil {
		t.Errorf("it was not stopped in an orderly way: %v", err)
	}
	m.Stop()
	s.WantNothingLeft()
	snap, err := store.ReadSnapshot(s.State)
	if err != nil {
		t.Fatal(err)
	}
	reason := regexp.MustCompile(`^memory [0-9.]+MiB is above memory_restart 48MiB$`)
	var types []string
	for _, e := range snap.Events {
		if reason.MatchString(e.Detail) {
			types = append(types, e.Type)
		}
	}
	if want := []string{"memory", "stopping", "exited"}; !slices.Equal(types, want) {
		t.Errorf("events with the reason: %q, want %q in %+v", types, want, snap.Events)
	}
}

// Killed in the middle of the stop, the master leaves the rest of the restart to the next one.
func TestRestartForMemoryIsCompletedByTheNextMaster(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{"program": growing, "grow": "", "hsu.yaml": `
units:
  leak:
    kind: managed
    command: [./program]
    working_dir: .
    memory_restart: 48MiB
    restart: {policy: never}
    start: {settle: 20ms}
    stop: {grace: 30s, command: [sh, -c, "until test -e ended; do sleep 0.02; done"]}
`})
	m := s.start()
	stopping := s.await("leak-0", "is being stopped for its memory", func(w harness.Worker) bool {
		return w.Status == "stopping" && strings.Contains(w.Reason, "is above memory_restart 48MiB")
	})
	m.Kill()
	s.write("ended", "")
	m = s.start()
	after := s.await("leak-0", "is another process", up)
	if after.PID == stopping.PID || after.Adopted {
		t.Errorf("leak-0 = %+v, want another process than %d", after, stopping.PID)
	}
	m.Stop()
	s.WantNothingLeft()
}

// The usage of a worker is in the list, its JSON and the metrics, also that of a process that is only watched.
func TestUsageOfWorkers(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{"hsu.yaml": `
metrics: 127.0.0.1:${METRICS}
units:
  spin:
    kind: managed
    command: [sh, -c, 'while :; do :; done & sleep 1000000']
    start: {settle: 20ms}
    stop: {grace: 1s}
  seen:
    kind: unmanaged
    discover: {pid_file: seen.pid}
  off: {kind: managed, command: [sleep, "1000000"], restart: {policy: never}, start: {before: ["false"]}}
`})
	stranger := exec.Command("sleep", "1000000")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = stranger.Process.Kill(), stranger.Wait() })
	s.write("seen.pid", strconv.Itoa(stranger.Process.Pid)+"\n")
	metrics := harness.FreePort(t)
	s.environ = []string{fmt.Sprint("METRICS=", metrics)}
	m := s.start()
	for _, id := range []string{"spin-0", "seen-0"} {
		s.await(id, "runs", up)
	}
	harness.WaitFor(t, "its use of the processor is known", func() error {
		u := s.usageOf("spin-0")
		if u == nil || u.CPUShare == nil || *u.CPUShare < 0.01 || u.CPU < 0.05 {
			return fmt.Errorf("%+v", u)
		}
		if u.Processes != 3 || u.Threads != 3 || u.Resident < 1<<20 || u.OpenFiles == nil || *u.OpenFiles < 9 {
			t.Errorf("%+v, want a shell, its child and sleep", u)
		}
		return nil
	})
	if u := s.usageOf("seen-0"); u == nil || u.Processes != 1 || u.Resident < 100<<10 {
		t.Errorf("usage of a watched process: %+v", u)
	}
	if u := s.usageOf("off-0"); u != nil {
		t.Errorf("usage without a process: %+v", u)
	}
	page, err := get(t.Context(), metrics, "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`hsu_master_worker_processes{worker="spin-0"} 3`, `hsu_master_worker_threads{worker="spin-0"} 3`,
		`hsu_master_worker_resident_memory_bytes{worker="spin-0"}`,
		`hsu_master_worker_cpu_seconds_total{worker="spin-0"}`, `hsu_master_worker_open_fds{worker="spin-0"}`,
		`hsu_master_worker_processes{worker="seen-0"} 1`,
	} {
		if !strings.Contains(page, line) {
			t.Errorf("the metrics have no %s", line)
		}
	}
	if strings.Contains(page, `hsu_master_worker_processes{worker="off-0"}`) {
		t.Error("the metrics have processes of a worker that has none")
	}
	wide := s.CLI("worker", "list", "--wide").Stdout
	row := regexp.MustCompile(`(?m)^spin-0 .* [0-9.]+%  +[0-9.]+m?s  +[0-9.]+MiB  +\d+  +3  +3 `)
	if !strings.Contains(wide, "CPU TIME") || !row.MatchString(wide) {
		t.Errorf("worker list --wide:\n%s", wide)
	}
	m.Stop()
	s.WantNothingLeft()
}
