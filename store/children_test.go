package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/store/records"
)

// children are the functions that the test binary runs instead of its tests if childEnv is set to one of these
// names.
var children = map[string]func(){
	"hold":     hold,
	"load":     load,
	"requests": requests,
}

const (
	childDirEnv  = "HSU_STORE_TEST_DIR"
	childModeEnv = "HSU_STORE_TEST_MODE"
)

func childOptions() Options {
	if os.Getenv(childModeEnv) == "interval" {
		return Options{Sync: SyncInterval}
	}
	return Options{}
}

// hold opens the state, prints "open" and closes the state when standard input ends.
func hold() {
	db, err := Open(os.Getenv(childDirEnv), childOptions())
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("open")
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := db.Close(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// load writes one of these bytes to standard output before and one after each operation.
const (
	countSent, countAcked   = 's', 'a'
	workerSent, workerAcked = 'S', 'A'
)

// load counts and writes records until it is killed.
func load() {
	db, err := Open(os.Getenv(childDirEnv), childOptions())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	say := func(b byte) {
		if _, err := os.Stdout.Write([]byte{b}); err != nil {
			os.Exit(2) // the parent is gone
		}
	}
	must := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	ctx := context.Background()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for {
				say(countSent)
				must(db.AddProcessed(ctx, 1))
				say(countAcked)
			}
		})
	}
	wg.Go(func() {
		s, err := db.Snapshot()
		must(err)
		w := fullWorker("worker-0")
		if len(s.Workers) > 0 {
			w = s.Workers[0]
		}
		for {
			w.Incarnation++
			say(workerSent)
			must(db.Apply(ctx, records.PutWorker(w), records.AppendEvent(
				records.Event{Type: "started", Detail: fmt.Sprint(w.Incarnation)},
			)))
			say(workerAcked)
		}
	})
	wg.Wait()
}

// requests counts until it is killed, both with ids, which repeat, and without. It prints a line before each
// request ("s", or "S ID") and after it ("a", or "A ID", or "D ID" if the id was counted before).
func requests() {
	opts := childOptions()
	opts.RequestTTL = time.Hour
	db, err := Open(os.Getenv(childDirEnv), opts)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	say := func(line string) {
		if _, err := os.Stdout.WriteString(line + "\n"); err != nil {
			os.Exit(2) // the parent is gone
		}
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				say("s")
				if err := countNow(db); err != nil {
					panic(err)
				}
				say("a")
			}
		})
	}
	for i := range 8 {
		wg.Go(func() {
			for n := 0; ; n++ {
				id := fmt.Sprintf("request-%d", n*3+i%3) // some ids are also used by other goroutines
				say("S " + id)
				switch err := onceNow(db, resultOf(id, "done")); {
				case err == nil:
					say("A " + id)
				case errors.Is(err, ErrDuplicate):
					say("D " + id)
				default:
					panic(err)
				}
			}
		})
	}
	wg.Wait()
}

// child is a running copy of the test binary.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startChild(t *testing.T, name, dir string, mode SyncMode) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+name, childDirEnv+"="+dir)
	if mode == SyncInterval {
		cmd.Env = append(cmd.Env, childModeEnv+"=interval")
	}
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{cmd, in, bufio.NewReader(out)}
	t.Cleanup(c.kill)
	return c
}

// kill ends the child as a crash would. The child may already be dead.
func (c *child) kill() {
	if c.cmd.ProcessState == nil {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	}
}
