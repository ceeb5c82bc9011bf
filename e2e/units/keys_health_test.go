//go:build e2e && linux

package units

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/e2e/testdata/echo"
)

// clinic is an HTTP server that health checks ask. It notes the requests.
type clinic struct {
	*httptest.Server
	mu     sync.Mutex
	answer int // status code; 0 gives no answer
	asked  []*http.Request
	closed chan struct{}
}

func openClinic(t *testing.T) *clinic {
	c := &clinic{answer: http.StatusServiceUnavailable, closed: make(chan struct{})}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.asked = append(c.asked, r)
		answer := c.answer
		c.mu.Unlock()
		if answer == 0 {
			<-c.closed
			return
		}
		w.WriteHeader(answer)
	}))
	t.Cleanup(func() {
		close(c.closed)
		c.Close()
	})
	return c
}

// set sets the status code of the next answers, and returns the number of requests up to now.
func (c *clinic) set(answer int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = answer
	return len(c.asked)
}

// awaitAsked returns when there were n requests.
func (c *clinic) awaitAsked(t *testing.T, n int) (last *http.Request) {
	t.Helper()
	harness.WaitFor(t, fmt.Sprintf("%d requests", n), func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.asked) < n {
			return fmt.Errorf("%d", len(c.asked))
		}
		last = c.asked[len(c.asked)-1]
		return nil
	})
	return last
}

func starting(w harness.Worker) bool { return w.Status == "starting" && w.PID > 0 }

func unhealthy(w harness.Worker) bool { return w.Status == "unhealthy" }

// Readiness decides about the status, and leaves the process alone.
func TestKeysOfReadiness(t *testing.T) {
	t.Parallel()
	c := openClinic(t)
	s := newSite(t, map[string]string{"hsu.yaml": `
defaults: {kind: managed, command: [sleep, "1000000"], stop: {grace: 1s}, health: {interval: 30ms}}
units:
  web:
    readiness:
      type: http
      url: ${CLINIC}/{unit}/{worker}
      status: [204, 299]
      headers: {Token: "${WORD}"}
      interval: 30ms
      timeout: 500ms
      failures: 4
      successes: 3
    liveness: {type: process}
`})
	s.environ = []string{"CLINIC=" + c.URL, "WORD=hunter2"}
	m := s.start()
	r := c.awaitAsked(t, 2)
	if r.Method != http.MethodGet || r.URL.Path != "/web/web-0" || r.Header.Get("Token") != "hunter2" {
		t.Errorf("the check is %s %s with %q", r.Method, r.URL, r.Header)
	}
	s.await("web-0", "says what it waits for", func(w harness.Worker) bool {
		return starting(w) && strings.Contains(w.WaitingFor, "503")
	})
	c.set(http.StatusNoContent)
	before := s.await("web-0", "runs", up)

	for _, fault := range []struct {
		answer int
		reason string
	}{{http.StatusOK, "200"}, {0, "no answer in time"}} { // 200 is not in the list
		asked := c.set(fault.answer)
		c.awaitAsked(t, asked+4)
		w := s.await("web-0", "is unhealthy", unhealthy)
		if !strings.Contains(w.Reason, fault.reason) || w.PID != before.PID {
			t.Errorf("after %d: %+v, want PID %d and the reason %q", fault.answer, w, before.PID, fault.reason)
		}
		asked = c.set(299)
		s.await("web-0", "runs again", up)
		c.awaitAsked(t, asked+3)
	}
	if w := s.await("web-0", "runs", up); w.PID != before.PID || w.Restarts != 0 {
		t.Errorf("web-0 = %+v, want it as it was: %+v", w, before)
	}
	if shown := s.CLI("state", "dump", "--json").Stdout + m.Log(); strings.Contains(shown, "hunter2") {
		t.Errorf("a secret is shown:\n%s", shown)
	}
	m.Stop()
	s.WantNothingLeft()
}

// Health is readiness and liveness: a program that sleeps and fails its check is replaced.
func TestKeysOfHealth(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{"alive": "", "hsu.yaml": `
defaults:
  stop: {grace: 1s}
  restart: {backoff: {initial: 10ms, max: 20ms}}
  health: {interval: 30ms, timeout: 1s, failures: 2}
units:
  exec:
    kind: managed
    command: [sleep, "1000000"]
    health: {type: exec, command: [sh, -c, 'echo "no sign of {worker}"; test -e alive']}
  tcp:
    kind: managed
    command: [sleep, "1000000"]
    health: {type: tcp, address: "127.0.0.1:${PATIENT}"}
  split:
    kind: managed
    command: [sleep, "1000000"]
    readiness: {type: process}
    liveness: {type: exec, command: [test, -e, alive], interval: 30ms, timeout: 1s, failures: 2}
  ping: {command: ["${UNIT}"], health: {type: ping}}
  grpc: {command: ["${UNIT}", -as, healthy], services: [], health: {type: grpc}}
  stranger: {command: ["${UNIT}", -as, healthy], services: [], health: {type: grpc, service: acme.Unknown}}
  port: {command: ["${UNIT}", -as, bare], services: [], health: {type: tcp}}
  managed:
    kind: managed
    command: ["${UNIT}", -as, echo, --port, "{port}"]
    port: auto
    services: [proto.EchoService]
    health: {type: ping}
  process: {command: ["${UNIT}", -as, mute], services: [], health: {type: process}, start: {settle: 20ms}}
`})
	port := harness.FreePort(t)
	s.environ = []string{fmt.Sprint("PATIENT=", port), "UNIT=" + harness.Programs.Unit}
	m := s.start()
	for _, id := range []string{"exec-0", "split-0", "ping-0", "grpc-0", "port-0", "process-0", "managed-0"} {
		s.await(id, "runs", up)
	}
	if got, want := offered(s.Dump())[echo.Service], []string{"managed-0"}; !slices.Equal(got, want) {
		t.Errorf("the workers of the echo service are %v, want %v", got, want)
	}
	s.await("tcp-0", "waits for the port", func(w harness.Worker) bool {
		return starting(w) && strings.Contains(w.WaitingFor, "connection refused")
	})
	s.await("stranger-0", "waits for a service that its server does not know", func(w harness.Worker) bool {
		return starting(w) && strings.Contains(w.WaitingFor, "acme.Unknown")
	})
	l, err := net.Listen("tcp", harness.Loopback(port))
	if err != nil {
		t.Fatal(err)
	}
	var accepted sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); accepted.Wait() })
	accepted.Go(func() {
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			_ = conn.Close()
		}
	})
	s.await("tcp-0", "runs", up)

	before := s.Dump()
	if err := os.Remove(s.path("alive")); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"exec-0", "split-0"} {
		was := before.Worker(t, id)
		s.await(id, "is replaced", func(w harness.Worker) bool { return w.PID > 0 && w.PID != was.PID })
	}
	s.await("exec-0", "shows the output of its check", func(w harness.Worker) bool {
		return strings.Contains(w.WaitingFor+w.Reason, "no sign of exec-0")
	})
	s.write("alive", "")
	for _, id := range []string{"exec-0", "split-0"} {
		s.await(id, "runs again", up)
	}
	m.Stop()
	s.WantNothingLeft()
}
