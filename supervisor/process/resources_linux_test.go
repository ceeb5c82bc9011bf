package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/procfs"
	"github.com/core-tools/hsu-master/supervisor/process/internal/kernel"
)

func measure(t *testing.T, families ...Family) []Resources {
	t.Helper()
	ctx, cancel := testDeadline()
	defer cancel()
	used, err := Measure(ctx, families)
	if err != nil {
		t.Fatal(err)
	}
	return used
}

// unopened returns the family as a record describes it, without a handle on the instance.
func (w *worker) unopened() Family {
	f := w.family
	f.Main, f.Leader = nil, 0
	return f
}

// Every member counts once, whichever evidence there is of it, and in its own family only.
func TestMeasureFindsEveryMember(t *testing.T) {
	tests := []struct {
		behaviour string
		args      []string
		living    int
	}{
		{"sleep", nil, 1},
		{"spawn", []string{"sleep"}, 2},
		{"double-fork", []string{"clear", "sleep"}, 2},
		{"leave", []string{"clear", "sleep"}, 1},
		{"leave", []string{"clear", "spawn", "sleep"}, 2},
		{"leave", []string{"close-lease"}, 1},
		{"close-lease", []string{"clear", "sleep"}, 1},
		{"leave", []string{"clear", "dead-leader"}, 1},
	}
	var families []Family
	for _, tt := range tests {
		w := startWorker(t, tt.behaviour, tt.args...)
		for range tt.living {
			w.expect(t, "ready")
		}
		if tt.behaviour == "leave" {
			waitDone(t, w.Process)
			w.Exit() // its child no longer has a parent in the family
		}
		families = append(families, w.unopened())
	}
	for i, used := range measure(t, families...) {
		name := fmt.Sprint(tests[i].behaviour, tests[i].args)
		if used.Processes != tests[i].living || used.Threads < used.Processes {
			t.Errorf("%s: %+v, want %d processes", name, used, tests[i].living)
		}
		if used.Resident < 100<<10 || used.Files < 3*used.Processes {
			t.Errorf("%s: %+v, want the memory and the descriptors of each process", name, used)
		}
	}
}

// The sums are those of the single processes, as /proc shows them apart from the file that Measure reads.
func TestMeasureSumsOverTheMembers(t *testing.T) {
	w := startWorker(t, "spawn", "sleep")
	pids := []int{w.expectPID(t, "ready"), w.expectPID(t, "ready")}
	used := measure(t, w.unopened())[0]
	var resident, threads, files int
	for _, pid := range pids {
		status, err := os.ReadFile(procfs.Path(pid, "status"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(status)) {
			name, value, _ := strings.Cut(line, ":")
			n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			switch name {
			case "VmRSS":
				resident += n << 10
			case "Threads":
				threads += n
			}
		}
		open, err := os.ReadDir(procfs.Path(pid, "fd"))
		if err != nil {
			t.Fatal(err)
		}
		files += len(open)
	}
	// The kernel sums the memory up per thread, and shows it with a small error.
	if diff := used.Resident - int64(resident); diff < -4<<20 || diff > 4<<20 {
		t.Errorf("resident: %d, want about %d", used.Resident, resident)
	}
	if used.Processes != 2 || used.Threads != threads || used.Files != files {
		t.Errorf("%+v, want %d threads and %d files of 2 processes", used, threads, files)
	}
}

func TestMeasureOfAnEndedFamilyIsEmpty(t *testing.T) {
	living, dead := startWorker(t, "sleep"), startWorker(t, "sleep")
	living.expect(t, "ready")
	dead.expect(t, "ready")
	if err := dead.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitDone(t, dead.Process)
	used := measure(t, dead.unopened(), living.unopened(), Family{})
	if used[0] != (Resources{}) || used[1].Processes != 1 || used[2] != (Resources{}) {
		t.Errorf("%+v, want that of the second alone", used)
	}
}

// The descriptors of a process that belongs to no family by other evidence than its lease are read once.
func TestMeasureReadsDescriptorsOnce(t *testing.T) {
	w := startWorker(t, "leave", "clear", "sleep")
	pid := w.expectPID(t, "ready")
	waitDone(t, w.Process)
	w.Exit()
	s, err := procfs.ReadStat(pid)
	if err != nil {
		t.Fatal(err)
	}
	check := func(when string, want int) {
		t.Helper()
		if used := measure(t, w.unopened())[0]; used.Processes != want {
			t.Errorf("%s: %+v, want %d processes", when, used, want)
		}
	}
	check("first", 1)
	check("again", 1)
	seenFiles.known[pid] = filesOf{start: s.StartTicks}
	check("with no file remembered", 0)
	seenFiles.keep(map[int]procfs.Stat{pid: {StartTicks: s.StartTicks}})
	check("while it lives", 0)
	seenFiles.keep(map[int]procfs.Stat{pid: {StartTicks: s.StartTicks + 1}})
	check("as another process", 1)
}

// A process that was measured is not measured any more when it has ended, before its parent has reaped it.
func TestMeasureOfAProcessThatHasEndedSince(t *testing.T) {
	cmd := exec.Command("/bin/sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(cmd.Process.Kill(), cmd.Wait()) })
	pid := cmd.Process.Pid
	s, err := procfs.ReadStat(pid)
	if err != nil {
		t.Fatal(err)
	}
	family := Family{Session: pid, StartTicks: s.StartTicks}
	if used := measure(t, family)[0]; used.Processes != 1 {
		t.Errorf("%+v, want one process", used)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if used := measure(t, family)[0]; used != (Resources{}) {
		t.Errorf("%+v of a process that has ended", used)
	}
}

// Another process that has got the PID of an instance is not measured.
func TestMeasureComparesTheStartTime(t *testing.T) {
	w := startWorker(t, "sleep")
	w.expect(t, "ready")
	reused := Family{Session: w.PID(), StartTicks: w.Identity().StartTicks - 1}
	if used := measure(t, reused)[0]; used != (Resources{}) {
		t.Errorf("%+v of a process that started at another time", used)
	}
}

// Before Linux 6.2 a user cannot count the descriptors of another user's process. They are not 0 then.
func TestMeasureDoesNotKnowTheFilesOfAnotherUser(t *testing.T) {
	needRoot(t)
	other := startWorker(t, "sleep")
	other.expect(t, "ready")
	w := startWorker(t, "nobody-files", strconv.Itoa(other.PID()))
	if got := w.expect(t, "files"); got != "-1 of 1" {
		t.Errorf("files %s, want them unknown", got)
	}
}

// A member that ends meanwhile does not hide the descriptors of the others.
func TestCountFilesOfAProcessThatHasEnded(t *testing.T) {
	withhold(t, &kernel.Withheld.FolderSize)
	buf := procfs.GetBuffer()
	defer procfs.PutBuffer(buf)
	if n, ok := countFiles(1<<30, buf); n != 0 || !ok {
		t.Errorf("countFiles = %d, %t, want none", n, ok)
	}
	if n, ok := countFiles(os.Getpid(), buf); n < 3 || !ok {
		t.Errorf("countFiles = %d, %t, want those of this process", n, ok)
	}
}

// BenchmarkMeasure measures a fleet of 300 workers in one pass.
func BenchmarkMeasure(b *testing.B) {
	const fleet = 300
	var families []Family
	for range fleet {
		w := startWorker(b, "sleep")
		families = append(families, w.unopened())
	}
	for _, lease := range []bool{true, false} {
		b.Run(fmt.Sprintf("lease=%t", lease), func(b *testing.B) {
			measured := families
			if !lease {
				measured = nil
				for _, f := range families {
					f.LeasePath = ""
					measured = append(measured, f)
				}
			}
			stop := reportCPU(b)
			for b.Loop() {
				used, err := Measure(b.Context(), measured)
				if err != nil || used[fleet-1].Processes != 1 {
					b.Fatal(used[fleet-1], err)
				}
			}
			stop()
			countProcesses(b)
		})
	}
}
