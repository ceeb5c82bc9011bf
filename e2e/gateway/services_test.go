//go:build e2e && linux

package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/e2e/testdata/echo"
)

// change is a line of "service list --watch --json".
type change struct {
	Change   string `json:"change"`
	Service  string `json:"service"`
	Endpoint *struct {
		Address string `json:"address"`
		Healthy bool   `json:"healthy"`
	} `json:"endpoint"`
}

// watchServices runs "service list --watch", and returns its output, and a function that ends it as Ctrl-C does.
func watchServices(h *harness.Host) (changes <-chan change, interrupt func() syscall.WaitStatus) {
	h.T.Helper()
	cmd := exec.CommandContext(h.T.Context(), harness.Programs.Master, "service", "list",
		"--watch", "--json", "--state-dir", h.State)
	cmd.Env = harness.CleanEnviron()
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.T.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.T.Fatal(err)
	}
	lines := make(chan change, 1000)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			var c change
			if err := json.Unmarshal(scanner.Bytes(), &c); err != nil {
				h.T.Errorf("%q: %v", scanner.Text(), err)
			}
			lines <- c
		}
		err := cmd.Wait()
		if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
			h.T.Error(err)
		}
	}()
	return lines, func() syscall.WaitStatus {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			h.T.Error(err)
		}
		<-ended
		return cmd.ProcessState.Sys().(syscall.WaitStatus)
	}
}

// await returns when a change has arrived that passes.
func await(t *testing.T, changes <-chan change, what string, pass func(change) bool) {
	t.Helper()
	over := time.After(harness.Patience)
	for {
		select {
		case c, more := <-changes:
			if !more {
				t.Fatalf("%s: the watch has ended", what)
			}
			if pass(c) {
				return
			}
		case <-over:
			t.Fatalf("%s: not told", what)
		}
	}
}

func TestRegisteredEndpointIsServedOverACrashUntilItsTimeIsOver(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	server := grpc.NewServer()
	registerEcho(server)
	at := serve(t, server)
	m := h.Start()
	changes, interrupt := watchServices(h)
	await(t, changes, "what there is", func(c change) bool { return c.Change == "current" })
	// Long enough for a loaded machine to reach the next line.
	const ttl = 10 * time.Second
	if r := h.CLI("service", "register", echoService, at, "--ttl", ttl.String()); r.Code != 0 ||
		!strings.Contains(r.Stdout, "it answers and gets calls") {
		t.Fatalf("register: exit code %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	await(t, changes, "a registered endpoint",
		func(c change) bool { return c.Endpoint != nil && c.Endpoint.Address == at && c.Endpoint.Healthy })
	m.Kill()
	await(t, changes, "that there is no master", func(c change) bool { return c.Change == "away" })

	m = h.Start()
	await(t, changes, "that there is one again", func(c change) bool { return c.Change == "back" })
	conn := h.Dial()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	if err := echo.Call(ctx, conn, "the first after SERVING"); err != nil {
		t.Errorf("after the crash: %v", err)
	}
	await(t, changes, "the end of its time",
		func(c change) bool { return c.Change == "removed" && c.Service == echoService && c.Endpoint == nil })
	if err := echo.Call(ctx, conn, "too late"); status.Code(err) != codes.Unimplemented {
		t.Errorf("after its time: %v, want UNIMPLEMENTED", err)
	}
	if r := h.CLI("service", "deregister", echoService); r.Code != 1 ||
		!strings.Contains(r.Stderr, "no such endpoint") {
		t.Errorf("deregister what is gone: exit code %d: %s", r.Code, r.Stderr)
	}
	m.Stop()
	await(t, changes, "that the master has stopped", func(c change) bool { return c.Change == "away" })
	if got := interrupt(); !got.Signaled() || got.Signal() != syscall.SIGINT {
		t.Errorf("the watch ended with %#x, want by the interrupt", int(got))
	}
}

// No flag names the service: its workers reported it before the crash.
func TestWhatWorkersHaveToldIsRoutedAtOnceAfterACrash(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	h.Flags = h.Units("told", "told")
	m := h.Start()
	want := h.AwaitRunning(2).Instances()
	awaitService(h, echoService, 2)
	for range 3 {
		m.Kill()
		m = h.Start()
		ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
		if err := echo.Call(ctx, h.Dial(), "the first after SERVING"); err != nil {
			t.Errorf("after the crash: %v", err)
		}
		cancel()
	}
	if got := h.AwaitRunning(2).Instances(); len(got) != len(want) {
		t.Errorf("the units are %v, were %v", got, want)
	}
	m.Stop()
	h.WantNothingLeft()
}
