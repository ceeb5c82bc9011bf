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
)

// runHere runs a command as a master does, under a token.
func runHere(token string) func(ctx context.Context, command []string) (process.Ran, error) {
	return func(ctx context.Context, command []string) (process.Ran, error) {
		return process.Run(ctx, process.Spec{
			Path: command[0], Args: command[1:],
			Env: []string{"PATH=" + os.Getenv("PATH"), process.EnvWorkerToken + "=" + token},
		}, token)
	}
}

func TestExec(t *testing.T) {
	dir := t.TempDir()
	pids := filepath.Join(dir, "pids")
	sh := func(script string) []string { return []string{"/bin/sh", "-c", script} }
	for name, test := range map[string]struct {
		command []string
		want    string
	}{
		"passes":      {sh("echo well"), ""},
		"fails":       {sh("echo first; echo no disk >&2; echo; exit 3"), ": exit code 3: no disk"},
		"fails mute":  {sh("exit 1"), ": exit code 1"},
		"is killed":   {sh("kill -KILL $$"), ": killed by SIGKILL"},
		"is missing":  {[]string{filepath.Join(dir, "none")}, "no such file"},
		"hangs":       {sh("setsid sleep 1000 & echo $! >" + pids + "; echo busy; wait"), ": no answer in time: busy"},
		"never stops": {sh("while :; do echo more; done"), ": no answer in time: "},
	} {
		t.Run(name, func(t *testing.T) {
			s := Spec{Type: TypeExec, Command: test.command}
			s.Timeout = time.Minute
			if strings.Contains(test.want, "no answer in time") {
				s.Timeout = time.Second
			}
			got := ask(t, s, Target{Run: runHere(t.Name() + dir)})
			if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
	pid, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	if line, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/cmdline"); err == nil &&
		strings.Contains(string(line), "sleep") {
		t.Errorf("process %s lives after its check", pid)
	}
}

// Otherwise a command that hangs would never count.
func TestExecIsNotLateForTheTimeThatKillingTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, list := serve(t), told{epoch: time.Now()}
		slow := func(ctx context.Context, _ []string) (process.Ran, error) {
			<-ctx.Done()
			ran := process.Ran{Cut: true, At: time.Now()}
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
	lacking := func(context.Context, []string) (process.Ran, error) { return process.Ran{}, syscall.EMFILE }
	p := New(Spec{Type: TypeExec, Command: []string{"/check"}}, Target{Run: lacking})
	if err := p.Ping(t.Context()); !Local(err) {
		t.Errorf("%v counts against the worker", err)
	}
}
