//go:build e2e && linux

package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/store/records"
)

// The JSON of "state plan", repeated here because scripts rely on it.
type planned struct {
	Workers []struct {
		ID       string `json:"id"`
		Action   string `json:"action"`
		Reason   string `json:"reason"`
		Evidence struct {
			Recorded *struct {
				Status     string `json:"status"`
				PID        int    `json:"pid"`
				Inode      uint64 `json:"inode"`
				StartTicks uint64 `json:"start_ticks"`
				BootID     string `json:"boot_id"`
				Proof      string `json:"proof"`
				Token      string `json:"token"`
				Port       int    `json:"port"`
				Lease      string `json:"lease"`
			} `json:"recorded"`
			Found *struct {
				State         string `json:"state"`
				PID           int    `json:"pid"`
				TokenSeen     bool   `json:"token_seen"`
				SessionLeader bool   `json:"session_leader"`
			} `json:"found"`
			Port *struct {
				Port  int    `json:"port"`
				Owner string `json:"owner"`
			} `json:"port"`
		} `json:"evidence"`
	} `json:"workers"`
	Source    string `json:"source"`
	MasterPID int    `json:"master_pid"`
	Wanted    string `json:"wanted"`
	Backup    string `json:"backup"`
}

// decision is a decision about one worker, in a plan and in a master's log.
type decision struct{ Action, Reason string }

func (p planned) decisions() map[string]decision {
	all := map[string]decision{}
	for _, w := range p.Workers {
		all[w.ID] = decision{w.Action, w.Reason}
	}
	return all
}

// planOf returns "hsu-master state plan --json", and checks that the plan changes nothing.
func planOf(h *harness.Host, flags ...string) planned {
	h.T.Helper()
	files, processes := filesOf(h), standings(h)
	r := h.CLI(append([]string{"state", "plan", "--json"}, flags...)...)
	if r.Code != 0 {
		h.T.Fatalf("state plan: exit code %d: %s", r.Code, r.Stderr)
	}
	if diff := cmp.Diff(files, filesOf(h)); diff != "" {
		h.T.Errorf("the plan changed files (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(processes, standings(h)); diff != "" {
		h.T.Errorf("the plan changed processes (-before +after):\n%s", diff)
	}
	var p planned
	if err := json.Unmarshal([]byte(r.Stdout), &p); err != nil {
		h.T.Fatalf("state plan: %v\n%s", err, r.Stdout)
	}
	return p
}

// filesOf returns the mode, time of change and content of the files in the state directory, except the workers'
// output, which they continue to write.
func filesOf(h *harness.Host) map[string]string {
	h.T.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(h.State, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if filepath.Base(filepath.Dir(path)) == "logs" {
			return nil
		}
		all[path] = fmt.Sprint(info.Mode(), info.ModTime())
		if info.Mode().IsRegular() {
			text, err := os.ReadFile(path)
			all[path] += string(text)
			return err
		}
		return nil
	})
	if err != nil {
		h.T.Fatal(err)
	}
	return all
}

// standings returns the identity of each process of the host, and whether it is stopped.
func standings(h *harness.Host) map[int]string {
	h.T.Helper()
	all := map[int]string{}
	for _, f := range h.Processes() {
		all[f.PID] = fmt.Sprint(f.StartTicks, f.PPID, f.Session, strings.ContainsRune("TtZ", rune(f.State)), f.Command)
	}
	return all
}

// decisionsOf returns the decisions that a master logged at its start.
func decisionsOf(m *harness.Master) map[string]decision {
	m.Host.T.Helper()
	all := map[string]decision{}
	for line := range strings.Lines(m.Log()) {
		var said struct{ Msg, Worker, Action, Reason string }
		if json.Unmarshal([]byte(line), &said) != nil || said.Msg != "worker recovery decided" {
			continue
		}
		if _, known := all[said.Worker]; !known {
			all[strings.Trim(said.Worker, `"`)] = decision{said.Action, said.Reason}
		}
	}
	return all
}

func wantPlanned(m *harness.Master, p planned) {
	m.Host.T.Helper()
	// The exit of a worker is known until the process is reaped, which may happen at any time.
	exits := cmp.Transformer("withoutTheExit", func(d decision) string {
		return d.Action + ": " + strings.ReplaceAll(d.Reason, ", killed by SIGKILL", "")
	})
	if diff := cmp.Diff(p.decisions(), decisionsOf(m), exits); diff != "" {
		m.Host.T.Errorf("the start did not do what was planned (-plan +start):\n%s", diff)
	}
}

// The manual shows a plan before the first start.
func TestPlanOfTheFirstStart(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(2)...)
	r := h.CLI(append([]string{"state", "plan", "--json"}, harness.Workers(2)...)...)
	var p planned
	if err := json.Unmarshal([]byte(r.Stdout), &p); err != nil || r.Code != 0 {
		t.Fatalf("exit code %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	if _, err := os.Lstat(h.State); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the plan has made the state directory: %v", err)
	}
	m := h.Start()
	h.AwaitRunning(2)
	wantPlanned(m, p)
	m.Stop()
}

func TestPlanTellsWhatTheNextStartDoesAndDoesNothing(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(5)...)
	m := h.Start()
	before := h.AwaitRunning(5)
	m.Kill()
	killed, reused, stray := before.Worker(t, "worker-1"), before.Worker(t, "worker-2"), before.Worker(t, "worker-4")
	h.KillWorker(killed.PID)
	h.KillWorker(reused.PID)
	onPort, onPID := h.StartDecoy(killed.Port), h.StartDecoy(0)
	h.EditRecord("worker-2", func(w *records.Worker) { w.Instance.PID = onPID.PID })
	h.EditRecord("worker-3", nil) // its slot is wanted
	h.EditRecord("worker-4", nil) // its slot is not
	h.Flags = harness.Workers(4)

	p := planOf(h, harness.Workers(4)...)
	actions := map[string]string{}
	for id, d := range p.decisions() {
		actions[id] = d.Action
	}
	want := map[string]string{
		"worker-0": "adopt", "worker-1": "respawn", "worker-2": "respawn", "worker-3": "adopt",
		"worker-4": "sweep-stray",
	}
	if diff := cmp.Diff(want, actions); diff != "" {
		t.Errorf("planned (-want +got):\n%s", diff)
	}
	if p.Source != "offline" || p.MasterPID != 0 || p.Wanted != "flags" {
		t.Errorf("%+v, want a plan from the file and the flags", p)
	}
	for _, w := range p.Workers {
		recorded, found, port := w.Evidence.Recorded, w.Evidence.Found, w.Evidence.Port
		was := before.Worker(t, w.ID)
		if recorded != nil && (recorded.Token != was.Token || recorded.Port != was.Port || recorded.BootID == "" ||
			recorded.StartTicks == 0 || recorded.Lease == "") {
			t.Errorf("%s: recorded %+v, want what is recorded", w.ID, recorded)
		}
		switch w.ID {
		case "worker-0":
			if found.State != "alive" || found.PID != was.PID || !found.TokenSeen ||
				!found.SessionLeader || port.Owner != "ours" {
				t.Errorf("%s: found %+v, port %+v", w.ID, found, port)
			}
		case "worker-1":
			reason := fmt.Sprintf("port %d is held by another process, a new one is chosen", was.Port)
			if port.Port != was.Port || port.Owner != "foreign" || !strings.Contains(w.Reason, reason) {
				t.Errorf("%s: %s, port %+v", w.ID, w.Reason, port)
			}
		case "worker-2":
			if found.State != "reused" || found.PID != onPID.PID || found.TokenSeen || port.Owner != "free" ||
				!strings.Contains(w.Reason, "another process's") {
				t.Errorf("%s: %s, found %+v, port %+v", w.ID, w.Reason, found, port)
			}
		case "worker-3", "worker-4":
			if recorded != nil || found.PID != was.PID || !found.TokenSeen {
				t.Errorf("%s: recorded %+v, found %+v", w.ID, recorded, found)
			}
		}
	}
	onPort.WantUntouched(t)
	onPID.WantUntouched(t)
	r := h.CLI(append([]string{"state", "plan"}, harness.Workers(4)...)...)
	if r.Code != 0 || !strings.Contains(r.Stdout, fmt.Sprintf("worker-4  sweep-stray  %d", stray.PID)) {
		t.Errorf("for people: exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}

	m = h.Start()
	wantPlanned(m, p)
	after := h.AwaitRunning(4)
	for _, w := range after.Workers {
		was := before.Worker(t, w.ID)
		if adopt := want[w.ID] == "adopt"; adopt != (w.PID == was.PID) || adopt != w.Adopted {
			t.Errorf("%s = %+v, planned was %s", w.ID, w, want[w.ID])
		}
	}
	harness.WaitFor(t, "the stray is gone", func() error {
		if slices.ContainsFunc(h.Processes(), func(f harness.Process) bool { return f.PID == stray.PID }) {
			return fmt.Errorf("process %d lives", stray.PID)
		}
		return nil
	})
	h.WantNoTwin(after)
	m.Stop()
	onPort.WantUntouched(t)
	onPID.WantUntouched(t)
	h.WantNothingLeft()
}

func TestPlanBesideARunningMasterIsForItsSuccessor(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(3)...)
	m := h.Start()
	before := h.AwaitRunning(3)
	awaitBackup(h) // the plan is seen to change no files only while the master changes none
	p := planOf(h)
	if p.Source != "live" || p.MasterPID != m.PID || p.Wanted != "recorded" {
		t.Errorf("%+v, want a plan from master %d", p, m.PID)
	}
	for _, w := range p.Workers {
		if w.Action != "adopt" || w.Evidence.Recorded.PID != before.Worker(t, w.ID).PID {
			t.Errorf("%+v, want it adopted", w)
		}
	}
	fewer := planOf(h, harness.Workers(1)...)
	m.Kill()
	h.Flags = harness.Workers(1)
	m = h.Start()
	wantPlanned(m, fewer)
	h.AwaitRunning(1)
	m.Stop()
	h.WantNothingLeft()
}

// awaitBackup returns when the backup exists that a master makes soon after the first start.
func awaitBackup(h *harness.Host) {
	h.T.Helper()
	harness.WaitFor(h.T, "there is a backup", func() error {
		if len(backups(h)) == 0 {
			return errors.New("there is none")
		}
		return nil
	})
}

func TestPlanForADamagedStateIsWhatRecoveringDoes(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, append(harness.Workers(3), "--on-damage", "recover")...)
	m := h.Start()
	awaitBackup(h)
	before := h.AwaitRunning(3)
	m.Kill()
	h.KillWorker(before.Worker(t, "worker-1").PID)
	if err := os.Truncate(filepath.Join(h.State, "state.db"), 5000); err != nil {
		t.Fatal(err)
	}

	if r := h.CLI(append([]string{"state", "plan"}, harness.Workers(3)...)...); r.Code != 5 {
		t.Errorf("exit code %d for a damaged state, want 5: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	p := planOf(h, h.Flags...)
	if !slices.Contains(backups(h), p.Backup) {
		t.Errorf("planned from %q, want one of %v", p.Backup, backups(h))
	}
	m = h.Start()
	wantPlanned(m, p)
	after := h.AwaitRunning(3)
	for _, w := range after.Workers {
		if kept := w.ID != "worker-1"; kept != (w.PID == before.Worker(t, w.ID).PID) {
			t.Errorf("%s = %+v, it was %+v", w.ID, w, before.Worker(t, w.ID))
		}
	}
	h.WantNoTwin(after)
	m.Stop()
	h.WantNothingLeft()
}
