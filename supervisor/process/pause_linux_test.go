package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/procfs"
	"github.com/core-tools/hsu-master/supervisor/cgroup"
	"github.com/core-tools/hsu-master/supervisor/process/internal/kernel"
)

// keepPauseProcess starts a pause process and keeps it.
func keepPauseProcess([]string) {
	p, err := StartPauseProcess()
	must(err)
	fmt.Printf("pause %d\n", p.PID())
	sleepOn()
}

func TestPauseProcessEndsWithItsMaster(t *testing.T) {
	w := startWorker(t, "pause")
	p := watchPID(t, w.expectPID(t, "pause"))
	environ, err := os.ReadFile(procfs.Path(p.PID(), "environ"))
	if err != nil || len(environ) > 0 {
		t.Errorf("its environment is %q, %v, want an empty one", environ, err)
	}
	if err := w.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitDone(t, p)
}

func TestPauseProcessEndsWithClose(t *testing.T) {
	dir := testCgroup(t)
	p, err := StartPauseProcess()
	if err != nil {
		t.Fatal(err)
	}
	seen := watchPID(t, p.PID())
	if !p.Alive() {
		t.Error("it is not alive")
	}
	if err := p.MoveTo(dir); err != nil {
		t.Error(err)
	}
	if got := cgroup.Members(dir); !slices.Equal(got, []int{p.PID()}) {
		t.Errorf("the cgroup has %v, want %d", got, p.PID())
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	waitDone(t, seen)
}

// A program that clone3 cannot start inside its cgroup must not run before it was moved: its children would stay
// behind. The move waits here for a reader.
func TestProgramRunsOnlyInsideItsCgroup(t *testing.T) {
	withhold(t, &kernel.Withheld.CgroupClone)
	dir := t.TempDir()
	procs := filepath.Join(dir, "cgroup.procs")
	if err := unix.Mkfifo(procs, 0o600); err != nil {
		t.Fatal(err)
	}
	started := make(chan error, 1)
	go func() {
		p, err := Start(Spec{Path: "/bin/sleep", Args: []string{"60"}, Env: []string{"MOVED=" + dir}, Cgroup: dir})
		if err == nil {
			err = p.Signal(unix.SIGKILL)
			<-p.Done()
			err = errors.Join(err, p.Close())
		}
		started <- err
	}()
	command := ""
	awaitTrue(t, "a process is started", func() bool {
		command = commandWith(t, "MOVED="+dir)
		return command != ""
	})
	if !strings.HasPrefix(command, helperName+"\x00") {
		t.Errorf("%q runs outside of the cgroup", command)
	}
	if text, err := os.ReadFile(procs); err != nil || len(text) == 0 {
		t.Errorf("moved: %q, %v", text, err)
	}
	if err := <-started; err != nil {
		t.Error(err)
	}
}

// commandWith returns the command of the process with the variable.
func commandWith(t *testing.T, variable string) string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), variable) {
			command, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
			return string(command)
		}
	}
	return ""
}
