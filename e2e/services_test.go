//go:build e2e && linux

package e2e

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
func (h *host) watchServices() (changes <-chan change, interrupt func() syscall.WaitStatus) {
	h.t.Helper()
	cmd := exec.CommandContext(h.t.Context(), programs.master, "service", "list",
		"--watch", "--json", "--state-dir", h.state)
	cmd.Env = cleanEnviron()
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	lines := make(chan change, 1000)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			var c change
			if err := json.Unmarshal(scanner.Bytes(), &c); err != nil {
				h.t.Errorf("%q: %v", scanner.Text(), err)
			}
			lines <- c
		}
		err := cmd.Wait()
		if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
			h.t.Error(err)
		}
	}()
	return lines, func() syscall.WaitStatus {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			h.t.Error(err)
		}
		<-ended
		return cmd.ProcessState.Sys().(syscall.WaitStatus)
	}
}

// await returns when a change has arrived that passes.
func await(t *testing.T, changes <-chan change, what string, pass func(change) bool) {
	t.Helper()
	over := time.After(patience)
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
	h := newHost(t)
	server := grpc.NewServer()
	registerEcho(server)
	at := serve(t, server)
	m := h.start()
	changes, interrupt := h.watchServices()
	await(t, changes, "what there is", func(c change) bool { return c.Change == "current" })
	// Long enough for a loaded machine to reach the next line.
	const ttl = 10 * time.Second
	if r := h.cli("service", "register", echoService, at, "--ttl", ttl.String()); r.code != 0 ||
		!strings.Contains(r.stdout, "it answers and gets calls") {
		t.Fatalf("register: exit code %d: %s%s", r.code, r.stdout, r.stderr)
	}
	await(t, changes, "a registered endpoint",
		func(c change) bool { return c.Endpoint != nil && c.Endpoint.Address == at && c.Endpoint.Healthy })
	m.kill()
	await(t, changes, "that there is no master", func(c change) bool { return c.Change == "away" })

	m = h.start()
	await(t, changes, "that there is one again", func(c change) bool { return c.Change == "back" })
	conn := h.dial()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := callEcho(ctx, conn, "the first after SERVING"); err != nil {
		t.Errorf("after the crash: %v", err)
	}
	await(t, changes, "the end of its time",
		func(c change) bool { return c.Change == "removed" && c.Service == echoService && c.Endpoint == nil })
	if err := callEcho(ctx, conn, "too late"); status.Code(err) != codes.Unimplemented {
		t.Errorf("after its time: %v, want UNIMPLEMENTED", err)
	}
	if r := h.cli("service", "deregister", echoService); r.code != 1 ||
		!strings.Contains(r.stderr, "no such endpoint") {
		t.Errorf("deregister what is gone: exit code %d: %s", r.code, r.stderr)
	}
	m.stop()
	await(t, changes, "that the master has stopped", func(c change) bool { return c.Change == "away" })
	if got := interrupt(); !got.Signaled() || got.Signal() != syscall.SIGINT {
		t.Errorf("the watch ended with %#x, want by the interrupt", int(got))
	}
}

// No flag names the service: its workers reported it before the crash.
func TestWhatWorkersHaveToldIsRoutedAtOnceAfterACrash(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.flags = h.units("told", "told")
	m := h.start()
	want := h.awaitRunning(2).instances(t)
	h.awaitService(echoService, 2)
	for range 3 {
		m.kill()
		m = h.start()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := callEcho(ctx, h.dial(), "the first after SERVING"); err != nil {
			t.Errorf("after the crash: %v", err)
		}
		cancel()
	}
	if got := h.awaitRunning(2).instances(t); len(got) != len(want) {
		t.Errorf("the units are %v, were %v", got, want)
	}
	m.stop()
	h.wantNothingLeft()
}
