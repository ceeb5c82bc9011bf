//go:build e2e && linux

package e2e

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

// plan returns "hsu-master state plan --json", and checks that the plan changes nothing.
func (h *host) plan(flags ...string) planned {
	h.t.Helper()
	files, processes := h.files(), h.standings()
	r := h.cli(append([]string{"state", "plan", "--json"}, flags...)...)
	if r.code != 0 {
		h.t.Fatalf("state plan: exit code %d: %s", r.code, r.stderr)
	}
	if diff := cmp.Diff(files, h.files()); diff != "" {
		h.t.Errorf("the plan changed files (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(processes, h.standings()); diff != "" {
		h.t.Errorf("the plan changed processes (-before +after):\n%s", diff)
	}
	var p planned
	if err := json.Unmarshal([]byte(r.stdout), &p); err != nil {
		h.t.Fatalf("state plan: %v\n%s", err, r.stdout)
	}
	return p
}

// files returns the mode, time of change and content of the files in the state directory, except the workers'
// output, which they continue to write.
func (h *host) files() map[string]string {
	h.t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(h.state, func(path string, entry fs.DirEntry, err error) error {
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
		h.t.Fatal(err)
	}
	return all
}

// standings returns the identity of each process of the host, and whether it is stopped.
func (h *host) standings() map[int]string {
	h.t.Helper()
	all := map[int]string{}
	for _, f := range h.processes() {
		all[f.pid] = fmt.Sprint(f.born, f.ppid, f.session, strings.ContainsRune("TtZ", rune(f.state)), f.command)
	}
	return all
}

// decisions returns the decisions that a master logged at its start.
func (m *master) decisions() map[string]decision {
	m.h.t.Helper()
	all := map[string]decision{}
	for line := range strings.Lines(m.log()) {
		var said struct{ Msg, Worker, Action, Reason string }
		if json.Unmarshal([]byte(line), &said) != nil || said.Msg != "worker recovery" {
			continue
		}
		if _, known := all[said.Worker]; !known {
			all[strings.Trim(said.Worker, `"`)] = decision{said.Action, said.Reason}
		}
	}
	return all
}

func (m *master) wantPlanned(p planned) {
	m.h.t.Helper()
	// The exit of a worker is known until the process is reaped, which may happen at any time.
	exits := cmp.Transformer("withoutTheExit", func(d decision) string {
		return d.Action + ": " + strings.ReplaceAll(d.Reason, ", killed by SIGKILL", "")
	})
	if diff := cmp.Diff(p.decisions(), m.decisions(), exits); diff != "" {
		m.h.t.Errorf("the start did not do what was planned (-plan +start):\n%s", diff)
	}
}

func TestPlanTellsWhatTheNextStartDoesAndDoesNothing(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(5)...)
	m := h.start()
	before := h.awaitRunning(5)
	m.kill()
	killed, reused, stray := before.worker(t, "worker-1"), before.worker(t, "worker-2"), before.worker(t, "worker-4")
	h.killWorker(killed.PID)
	h.killWorker(reused.PID)
	onPort, onPID := h.decoy(killed.Port), h.decoy(0)
	h.edit("worker-2", func(w *records.Worker) { w.Instance.PID = onPID.pid() })
	h.edit("worker-3", nil) // its slot is wanted
	h.edit("worker-4", nil) // its slot is not
	h.flags = workers(4)

	p := h.plan(workers(4)...)
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
		was := before.worker(t, w.ID)
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
			if found.State != "reused" || found.PID != onPID.pid() || found.TokenSeen || port.Owner != "free" ||
				!strings.Contains(w.Reason, "another process's") {
				t.Errorf("%s: %s, found %+v, port %+v", w.ID, w.Reason, found, port)
			}
		case "worker-3", "worker-4":
			if recorded != nil || found.PID != was.PID || !found.TokenSeen {
				t.Errorf("%s: recorded %+v, found %+v", w.ID, recorded, found)
			}
		}
	}
	onPort.wantUntouched()
	onPID.wantUntouched()
	r := h.cli(append([]string{"state", "plan"}, workers(4)...)...)
	if r.code != 0 || !strings.Contains(r.stdout, fmt.Sprintf("worker-4  sweep-stray  %d", stray.PID)) {
		t.Errorf("for people: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}

	m = h.start()
	m.wantPlanned(p)
	after := h.awaitRunning(4)
	for _, w := range after.Workers {
		was := before.worker(t, w.ID)
		if adopt := want[w.ID] == "adopt"; adopt != (w.PID == was.PID) || adopt != w.Adopted {
			t.Errorf("%s = %+v, planned was %s", w.ID, w, want[w.ID])
		}
	}
	waitFor(t, "the stray is gone", func() error {
		if slices.ContainsFunc(h.processes(), func(f found) bool { return f.pid == stray.PID }) {
			return fmt.Errorf("process %d lives", stray.PID)
		}
		return nil
	})
	h.wantNoTwin(after)
	m.stop()
	onPort.wantUntouched()
	onPID.wantUntouched()
	h.wantNothingLeft()
}

func TestPlanBesideARunningMasterIsForItsSuccessor(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(3)...)
	m := h.start()
	before := h.awaitRunning(3)
	h.awaitBackup() // the plan is seen to change no files only while the master changes none
	p := h.plan()
	if p.Source != "live" || p.MasterPID != m.pid || p.Wanted != "recorded" {
		t.Errorf("%+v, want a plan from master %d", p, m.pid)
	}
	for _, w := range p.Workers {
		if w.Action != "adopt" || w.Evidence.Recorded.PID != before.worker(t, w.ID).PID {
			t.Errorf("%+v, want it adopted", w)
		}
	}
	fewer := h.plan(workers(1)...)
	m.kill()
	h.flags = workers(1)
	m = h.start()
	m.wantPlanned(fewer)
	h.awaitRunning(1)
	m.stop()
	h.wantNothingLeft()
}

// awaitBackup returns when the backup exists that a master makes soon after the first start.
func (h *host) awaitBackup() {
	h.t.Helper()
	waitFor(h.t, "there is a backup", func() error {
		if len(h.backups()) == 0 {
			return errors.New("there is none")
		}
		return nil
	})
}

func TestPlanForADamagedStateIsWhatRecoveringDoes(t *testing.T) {
	t.Parallel()
	h := newHost(t, append(workers(3), "--on-damage", "recover")...)
	m := h.start()
	h.awaitBackup()
	before := h.awaitRunning(3)
	m.kill()
	h.killWorker(before.worker(t, "worker-1").PID)
	if err := os.Truncate(filepath.Join(h.state, "state.db"), 5000); err != nil {
		t.Fatal(err)
	}

	if r := h.cli(append([]string{"state", "plan"}, workers(3)...)...); r.code != 5 {
		t.Errorf("exit code %d for a damaged state, want 5: %s%s", r.code, r.stdout, r.stderr)
	}
	p := h.plan(h.flags...)
	if !slices.Contains(h.backups(), p.Backup) {
		t.Errorf("planned from %q, want one of %v", p.Backup, h.backups())
	}
	m = h.start()
	m.wantPlanned(p)
	after := h.awaitRunning(3)
	for _, w := range after.Workers {
		if kept := w.ID != "worker-1"; kept != (w.PID == before.worker(t, w.ID).PID) {
			t.Errorf("%s = %+v, it was %+v", w.ID, w, before.worker(t, w.ID))
		}
	}
	h.wantNoTwin(after)
	m.stop()
	h.wantNothingLeft()
}
