package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/procfs"
	"github.com/core-tools/hsu-master/supervisor/cgroup"
	"github.com/core-tools/hsu-master/supervisor/process/internal/kernel"
)

// testCgroup makes a cgroup for the test, or skips the test.
func testCgroup(t *testing.T) string {
	t.Helper()
	own, err := cgroup.Of(os.Getpid())
	if err != nil {
		t.Skip(err)
	}
	path, err := cgroup.Create(own, fmt.Sprintf("hsu-test-%d-%s", os.Getpid(), filepath.Base(t.TempDir())))
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := cgroup.Remove(path); err != nil {
			t.Error(err)
		}
	})
	return path
}

func TestStartInCgroup(t *testing.T) {
	for _, way := range []string{"clone", "move"} {
		t.Run(way, func(t *testing.T) {
			if way == "move" {
				withhold(t, &kernel.Withheld.CgroupClone)
			}
			w := prepareWorker(t)
			w.family.Cgroup = testCgroup(t)
			w.start(t, Spec{Args: childArgs("sleep"), Cgroup: w.family.Cgroup})
			w.expect(t, "ready")
			text, err := os.ReadFile(procfs.Path(w.PID(), "cgroup"))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(text, []byte(filepath.Base(w.family.Cgroup)+"\n")) {
				t.Errorf("the process is in %q, not in %s", text, w.family.Cgroup)
			}
			if err := cgroup.Remove(w.family.Cgroup); !errors.Is(err, unix.EBUSY) {
				t.Errorf("Remove with a member: %v, want EBUSY", err)
			}
			ctx, cancel := testDeadline()
			defer cancel()
			if left, err := w.family.Kill(ctx); err != nil {
				t.Errorf("Kill: left %+v, %v", left, err)
			}
			waitDone(t, w.Process)
		})
	}
}

// The descendant can be found only by its cgroup.
func TestCgroupSettlesTheFamily(t *testing.T) {
	for _, way := range []string{"cgroup.kill", "one by one"} {
		t.Run(way, func(t *testing.T) {
			if way == "one by one" {
				withhold(t, &kernel.Withheld.CgroupKill)
			}
			w := prepareWorker(t)
			w.family.Cgroup = testCgroup(t)
			w.start(t, Spec{
				Args:   childArgs("leave", "close-lease", "clear", "sleep"),
				Cgroup: w.family.Cgroup,
			})
			hidden := watchPID(t, w.expectPID(t, "ready"))
			waitDone(t, w.Process)
			ctx, cancel := testDeadline()
			defer cancel()
			members, err := w.family.Members(ctx)
			if err != nil || len(members) != 1 || members[0].PID != hidden.PID() {
				t.Errorf("Members: %+v, %v, want process %d", members, err, hidden.PID())
			}
			if left, err := w.family.Kill(ctx); err != nil || len(left) > 0 {
				t.Errorf("Kill: left %+v, %v", left, err)
			}
			waitDone(t, hidden)
		})
	}
}

// A record that names the master's own cgroup must not make it kill itself.
func TestKillSparesItsOwnCgroup(t *testing.T) {
	own, err := cgroup.Of(os.Getpid())
	if err != nil {
		t.Skip(err)
	}
	s := &sweep{family: Family{Cgroup: own}, ourselves: ourselves()}
	s.killCgroup() // this process survives
}

func TestDelegatedCgroup(t *testing.T) {
	for _, test := range []struct {
		delegated bool
		below     string // the cgroup of the process, below the delegated one
	}{{true, ""}, {false, ""}, {true, cgroup.Master}, {true, "worker-0.token"}, {false, cgroup.Master}} {
		delegated := test.delegated
		t.Run(fmt.Sprint(delegated, test.below), func(t *testing.T) {
			dir := testCgroup(t)
			if delegated {
				if err := unix.Setxattr(dir, "user.delegate", []byte("1"), 0); err != nil {
					if err := unix.Setxattr(dir, "trusted.delegate", []byte("1"), 0); err != nil {
						t.Skip(err)
					}
				}
			}
			start := dir
			if test.below != "" {
				var err error
				if start, err = cgroup.Create(dir, test.below); err != nil {
					t.Fatal(err)
				}
			}
			w := prepareWorker(t)
			w.start(t, Spec{Args: childArgs("cgroup"), Cgroup: start})
			want := "false "
			if delegated && (test.below == "" || test.below == cgroup.Master) {
				want = "true " + dir
			}
			if got := w.expect(t, "cgroup"); got != strings.TrimSpace(want) {
				t.Errorf("Delegated() in the process = %q, want %q", got, want)
			}
			ctx, cancel := testDeadline()
			defer cancel()
			if left, err := w.family.Kill(ctx); err != nil {
				t.Errorf("Kill: left %+v, %v", left, err)
			}
		})
	}
}

// The limits of the cgroup are set before the program runs, and if there is a start helper, when that is in the cgroup:
// it may use more than the program. If they cannot be set, the program does not run.
func TestConfine(t *testing.T) {
	for name, rights := range map[string]Rights{
		"direct": {}, "by a start helper": {Attributes: Attributes{Umask: new(uint32(0o22))}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, ran := testCgroup(t), filepath.Join(t.TempDir(), "ran")
			refused := errors.New("refused")
			calls := 0
			rights.Account = ownAccount()
			spec := Spec{Path: "/bin/sh", Args: []string{"-c", "echo >" + ran}, Cgroup: dir, Rights: rights}
			spec.Confine = func() error {
				calls++
				helper := rights.needsHelper()
				if members := cgroup.Members(dir); (len(members) == 1) != helper || len(members) > 1 {
					t.Errorf("the cgroup has the processes %v, with a start helper: %t", members, helper)
				}
				if _, err := os.Stat(ran); err == nil {
					t.Error("the program has run already")
				}
				if calls == 1 {
					return refused
				}
				return nil
			}
			if p, err := Start(spec); !errors.Is(err, refused) {
				t.Errorf("Start: %v, %v, want that the limits are refused", p, err)
			}
			if _, err := os.Stat(ran); err == nil {
				t.Error("the program runs without its limits")
			}
			p, err := Start(spec)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			waitDone(t, p)
			if _, err := os.Stat(ran); err != nil || calls != 2 {
				t.Errorf("the program has not run: %v, or its limits were set %d times", err, calls-1)
			}
		})
	}
}
