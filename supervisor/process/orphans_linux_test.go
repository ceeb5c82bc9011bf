package process

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
)

// A process that inherits orphans reaps them all, and learns how each child that it has started itself ended. Each
// such child leaves two orphans, one of which outlives the child.
func TestOrphansAreReapedAndNoExitOfAnOwnChildIsTaken(t *testing.T) {
	for _, how := range []string{"subreaper", "init"} {
		t.Run(how, func(t *testing.T) {
			spec := Spec{Args: childArgs("reaper", how)}
			if how == "init" {
				needRoot(t)
				self, err := os.Executable() // /proc/self/exe would be that of unshare
				if err != nil {
					t.Fatal(err)
				}
				spec = Spec{
					Path: "/usr/bin/unshare",
					Args: append([]string{"--fork", "--pid", "--mount-proc", self}, spec.Args...),
				}
			}
			w := prepareWorker(t).start(t, spec)
			if got, want := w.expect(t, "reaper"), "inherits true, wrong exits 0"; got != want {
				t.Errorf("the reaper says %q, want %q", got, want)
			}
			w.expect(t, "childless")
			waitDone(t, w.Process)
			if got, want := w.Exit(), (identity.Exit{Source: identity.ExitWait}); got != want {
				t.Errorf("the reaper ended with %v", got)
			}
		})
	}
}

func TestProcessInheritsNoOrphansUnlessItIsTold(t *testing.T) {
	w := startWorker(t, "inherits")
	if got := w.expect(t, "inherits"); got != "false" {
		t.Errorf("an ordinary process inherits orphans: %s", got)
	}
}

// reaper is the child of the test above.
func reaper(args []string) {
	if args[0] == "subreaper" {
		must(unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	}
	ctx, end := context.WithCancel(context.Background())
	var reaping, starts sync.WaitGroup
	reaping.Go(func() { ReapOrphans(ctx) })
	var wrong atomic.Int64
	for starter := range 4 {
		starts.Go(func() {
			for i := range 50 {
				code := starter*50 + i
				script := fmt.Sprintf("(: &); (sleep 0.0%d &); exit %d", i%10, code)
				p, err := Start(Spec{
					Path: "/bin/sh", Args: []string{"-c", script}, Env: []string{"PATH=/usr/bin:/bin"},
				})
				must(err)
				<-p.Done()
				if p.Exit() != (identity.Exit{Code: code, Source: identity.ExitWait}) {
					wrong.Add(1)
				}
				must(p.Close())
			}
		})
	}
	starts.Wait()
	fmt.Printf("reaper inherits %t, wrong exits %d\n", InheritsOrphans(), wrong.Load())
	awaitNoChild()
	end()
	reaping.Wait()
	fmt.Println("childless")
}

// awaitNoChild returns when this process has no child, dead or alive. It does not reap.
func awaitNoChild() {
	for {
		err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err == unix.ECHILD {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
