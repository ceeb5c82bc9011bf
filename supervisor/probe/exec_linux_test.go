package probe

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/process/oneshot"
)

// runHere runs a command as a master does, under a token.
func runHere(token string) func(ctx context.Context, command []string) (oneshot.Ran, error) {
	return func(ctx context.Context, command []string) (oneshot.Ran, error) {
		return oneshot.Run(ctx, oneshot.Spec{Spec: process.Spec{
			Path: command[0], Args: command[1:],
			Env: []string{"PATH=" + os.Getenv("PATH"), process.EnvWorkerToken + "=" + token},
		}}, token)
	}
}

func shell(script string) []string { return []string{"/bin/sh", "-c", script} }

func TestExec(t *testing.T) {
	for name, test := range map[string]struct {
		command []string
		want    string
	}{
		"passes":     {shell("echo well"), ""},
		"fails":      {shell("echo first; echo no disk >&2; echo; exit 3"), ": exit code 3: no disk"},
		"fails mute": {shell("exit 1"), ": exit code 1"},
		"is killed":  {shell("kill -KILL $$"), ": killed by SIGKILL"},
		"is missing": {[]string{filepath.Join(t.TempDir(), "none")}, "no such file"},
	} {
		s := Spec{Type: TypeExec, Command: test.command, Policy: Policy{Timeout: time.Minute}}
		got := ask(t, s, Target{Run: runHere(t.Name())})
		if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

func TestExecThatDoesNotEndIsKilledWithItsFamily(t *testing.T) {
	for name, test := range map[string]struct{ script, want string }{
		"hangs":       {"setsid sleep 1000 & echo busy; echo $! >PID; wait", ": no answer in time: busy"},
		"never stops": {"echo on; sleep 1000 & echo $! >PID; while :; do echo on; done", ": no answer in time: on"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "pid")
			p := New(Spec{
				Type: TypeExec, Command: shell(strings.ReplaceAll(test.script, "PID", file)),
			}, Target{Run: runHere(t.Name() + dir)})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			var pid string
			go func() {
				defer cancel() // the timeout of the check, once it is under way
				for text := []byte(nil); !strings.HasSuffix(string(text), "\n") && ctx.Err() == nil; {
					time.Sleep(time.Millisecond)
					text, _ = os.ReadFile(file)
					pid = strings.TrimSpace(string(text))
				}
			}()
			err := p.Ping(ctx)
			if err == nil || !strings.HasSuffix(p.Describe()+": "+Brief(err), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
			line, err := os.ReadFile("/proc/" + pid + "/cmdline")
			if pid == "" || err == nil && strings.Contains(string(line), "sleep") {
				t.Errorf("process %q lives after its check", pid)
			}
		})
	}
}

// Otherwise a command that hangs would never count.
func TestExecIsNotLateForTheTimeThatKillingTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, list := serve(t), told{epoch: time.Now()}
		slow := func(ctx context.Context, _ []string) (oneshot.Ran, error) {
			<-ctx.Done()
			ran := oneshot.Ran{Cut: true, At: time.Now()}
			time.Sleep(everySecond.Lateness + time.Millisecond)
			return ran, nil
		}
		p := New(Spec{Type: TypeExec, Command: []string{"/check"}}, Target{Run: slow})
		s.Add(everySecond, p.Ping, list.add)
		time.Sleep(1900 * time.Millisecond)
		synctest.Wait()
		if len(list.results) != 1 || list.results[0].Err == nil || list.results[0].Late {
			t.Errorf("told %+v, want a failure in time", list.results)
		}
	})
}

func TestLocalFaultOfACommandIsOneOfTheMaster(t *testing.T) {
	lacking := func(context.Context, []string) (oneshot.Ran, error) { return oneshot.Ran{}, syscall.EMFILE }
	p := New(Spec{Type: TypeExec, Command: []string{"/check"}}, Target{Run: lacking})
	if err := p.Ping(t.Context()); !Local(err) {
		t.Errorf("%v counts against the worker", err)
	}
}
