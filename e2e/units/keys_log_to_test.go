//go:build e2e && linux

package units

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/logs"
)

// counting writes numbered lines to its standard output, and every line also to its standard error.
const counting = `#!/bin/sh
i=0
while :; do
	i=$((i + 1))
	echo "line $i"
	echo "fault $i" >&2
	sleep 0.01
done
`

// counted returns the numbers of the lines that begin with the word.
func counted(t *testing.T, path, word string) (numbers []int) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range regexp.MustCompile(`(?m)^`+word+` (\d+)$`).FindAllStringSubmatch(string(text), -1) {
		n, _ := strconv.Atoi(found[1])
		numbers = append(numbers, n)
	}
	return numbers
}

// awaitLines returns when the file has n such lines, which must be 1, 2, 3 and so on.
func awaitLines(t *testing.T, path, word string, n int) {
	t.Helper()
	harness.WaitFor(t, fmt.Sprintf("%s has %d lines", path, n), func() error {
		if got := counted(t, path, word); len(got) < n {
			return fmt.Errorf("it has %d", len(got))
		}
		return nil
	})
	for i, got := range counted(t, path, word) {
		if got != i+1 {
			t.Fatalf("%s: %s %d follows %d", path, word, got, i)
		}
	}
}

// A worker writes to the standard output and error of its master, and goes on doing so when that master is dead: its
// lines are complete, and those of its commands are there too. The next instance writes to those of the master that
// starts it.
func TestOutputOfWorkersIsThatOfTheMaster(t *testing.T) {
	t.Parallel()
	const text = `
defaults: {kind: managed, log: {keep: 2}, start: {settle: 20ms}}
units:
  loud: {command: [./loud], log: {to: inherit}, start: {before: [echo, before]}}
`
	s := newSite(t, map[string]string{"loud": counting, "hsu.yaml": text})
	errorsPath := filepath.Join(s.Dir, "errors")
	// A shell leads the standard error elsewhere, and becomes the master.
	apart := []string{"-c", `exec "$@" 2>"$0"`, errorsPath, s.Program}
	m := s.Exec("/bin/sh", nil, append(apart, s.RunArgs()...)...)
	m.AwaitServing()
	first := s.awaitUp(1).Worker(t, "loud-0")
	awaitLines(t, m.LogPath, "line", 20)
	awaitLines(t, errorsPath, "fault", 20)
	if log := m.Log(); !strings.HasPrefix(log, "before\nline 1\n") {
		t.Errorf("the output of start.before is not at the begin of\n%.200s", log)
	}
	m.Kill()
	written := len(counted(t, m.LogPath, "line"))
	awaitLines(t, m.LogPath, "line", written+20)
	next := s.start()
	if w := s.awaitUp(1).Worker(t, "loud-0"); w.PID != first.PID || !w.Adopted {
		t.Errorf("the worker is %+v, and was process %d", w, first.PID)
	}
	written = len(counted(t, m.LogPath, "line"))
	awaitLines(t, m.LogPath, "line", written+20)
	awaitLines(t, errorsPath, "fault", written+20)
	s.KillWorker(first.PID)
	s.await("loud-0", "runs again", func(w harness.Worker) bool { return up(w) && w.PID != first.PID })
	awaitLines(t, next.LogPath, "line", 20)
	if _, err := os.Lstat(logs.Path(logs.DefaultDir(s.State), "loud-0")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the worker has a log: %v", err)
	}
	// Another place is for the next instance only.
	s.write("hsu.yaml", strings.ReplaceAll(text, "to: inherit", "to: file"))
	s.reload(0, "loud: replace in turn 1 worker: log.to\n")
	s.awaitUp(1)
	awaitLines(t, logs.Path(logs.DefaultDir(s.State), "loud-0"), "line", 5)
	next.Stop()
	s.WantNothingLeft()
}

// The last output of a worker that has failed is in no file, and people are told where.
func TestFailedWorkerTellsWhereItsOutputIs(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{"hsu.yaml": `
units:
  bad:
    kind: managed
    command: [sh, -c, "echo why; exit 1"]
    log: {to: inherit}
    restart: {budget: {restarts: 0}}
`})
	m := s.start()
	w := s.await("bad-0", "has failed", func(w harness.Worker) bool { return w.Status == "failed" })
	if want := []string{"(its output goes to the output of the master)"}; !slices.Equal(w.LastOutput, want) {
		t.Errorf("last_output is %q, want %q", w.LastOutput, want)
	}
	if !strings.Contains(m.Log(), "\nwhy\n") {
		t.Errorf("the master's output lacks that of the worker:\n%s", m.Log())
	}
	m.Stop()
	s.WantNothingLeft()
}

// Without journald a worker with log.to: journal runs, and writes to its file. That is reported once.
func TestJournalThatIsMissing(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(logs.JournalSocket); err == nil {
		t.Skip("this host has a journal: e2e/systemd tests that it is used")
	}
	s := newSite(t, map[string]string{"loud": counting, "hsu.yaml": `
units:
  loud: {kind: managed, command: [./loud], log: {to: journal}, start: {settle: 20ms}}
`})
	log := logs.Path(logs.DefaultDir(s.State), "loud-0")
	m := s.start()
	first := s.awaitUp(1).Worker(t, "loud-0")
	awaitLines(t, log, "line", 20)
	s.KillWorker(first.PID)
	s.await("loud-0", "runs again", func(w harness.Worker) bool { return up(w) && w.PID != first.PID })
	told := m.Logged("worker output not in the journal")
	if len(told) != 1 || told[0].Worker != "loud-0" || !strings.Contains(told[0].Reason, logs.JournalSocket) {
		t.Errorf("the log has %+v", told)
	}
	m.Kill()
	m = s.start()
	second := s.awaitUp(1).Worker(t, "loud-0")
	if told := m.Logged("worker output not in the journal"); len(told) != 0 {
		t.Errorf("the next master, which adopts the worker, logs %+v", told)
	}
	s.KillWorker(second.PID)
	s.await("loud-0", "runs again", func(w harness.Worker) bool { return up(w) && w.PID != second.PID })
	m.Stop()
	s.WantNothingLeft()
	snap, err := store.ReadSnapshot(s.State)
	if err != nil {
		t.Fatal(err)
	}
	reported := 0
	for _, e := range snap.Events {
		if e.Type == "log-fallback" && e.Worker == "loud-0" {
			reported++
		}
	}
	if reported != 1 {
		t.Errorf("%d events report it:\n%+v", reported, snap.Events)
	}
}
