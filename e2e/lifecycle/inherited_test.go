//go:build e2e && linux

package lifecycle

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// signalSet returns a set of signals of a process from /proc/PID/status.
func signalSet(t *testing.T, pid int, field string) (set uint64) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), field+":")
	set, err = strconv.ParseUint(strings.Fields(rest)[0], 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func setOf(signals ...syscall.Signal) (set uint64) {
	for _, s := range signals {
		set |= 1 << (s - 1)
	}
	return set
}

// The parent of the master may have ignored signals and left descriptors open. Workers inherit neither. The tests
// of supervisor/process cover the signal mask: Go changes that of its threads.
func TestWorkersDoNotInheritWhatTheMasterHasInherited(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(1)...)
	secret := filepath.Join(h.Dir, "secret")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(secret)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	h.Begin = func(cmd *exec.Cmd) error {
		sh, err := exec.LookPath("sh")
		if err != nil {
			return err
		}
		cmd.Path, cmd.Args = sh,
			append([]string{"sh", "-c", `trap "" HUP INT QUIT USR1 USR2 TSTP; exec "$@"`, "sh"}, cmd.Args...)
		cmd.ExtraFiles = []*os.File{nil, nil, nil, nil, file} // at 7
		return cmd.Start()
	}
	m := h.Start()
	w := h.AwaitRunning(1).Workers[0]
	// The terminal's signals to background processes stay as they are. So do glibc's internal signals 32 and 33,
	// which its posix_spawn ignores, as for everything that make starts: no program but libc handles them.
	if set := signalSet(t, w.PID, "SigIgn") &^ setOf(syscall.SIGTTIN, syscall.SIGTTOU, 32, 33); set != 0 {
		t.Errorf("the worker ignores signals %#x, want none", set)
	}
	open, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", w.PID))
	if err != nil || len(open) == 0 {
		t.Fatal("no descriptors are seen:", err)
	}
	for _, link := range open {
		if target, err := os.Readlink(link); err == nil && target == secret {
			t.Errorf("the worker has %s open", target)
		}
	}
	m.Signal(syscall.SIGTERM)
	m.WantExit(0)
	h.WantNothingLeft()
}
