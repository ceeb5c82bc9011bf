//go:build e2e && linux

package units

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// wire is a client of the module registry.
type wire struct {
	s    *site
	http *http.Client
}

// dialWire returns a client of the socket at path.
func (s *site) dialWire(path string) wire {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	s.T.Cleanup(transport.CloseIdleConnections)
	return wire{s, &http.Client{Transport: transport, Timeout: harness.Patience}}
}

// ask sends a request and returns the status code and the answer.
func (w wire) ask(method, path, body string) (code int, answer string) {
	w.s.T.Helper()
	request, err := http.NewRequestWithContext(
		w.s.T.Context(), method, "http://localhost/api/v1/"+path, strings.NewReader(body))
	if err != nil {
		w.s.T.Fatal(err)
	}
	response, err := w.http.Do(request)
	if err != nil {
		w.s.T.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		w.s.T.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// wantPort checks that a client finds the module at the port.
func (w wire) wantPort(module string, port int) {
	w.s.T.Helper()
	code, text := w.ask(http.MethodGet, "discover/"+module, "")
	var answer struct {
		ModuleID string
		APIs     []struct {
			ServiceIDs []string
			ServerPort int
			Protocol   string
		}
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		w.s.T.Errorf("discover %s: %d %s: %v", module, code, text, err)
		return
	}
	if code != http.StatusOK || answer.ModuleID != module || len(answer.APIs) != 1 ||
		answer.APIs[0].ServerPort != port || answer.APIs[0].Protocol != "grpc" ||
		fmt.Sprint(answer.APIs[0].ServiceIDs) != "[echo]" {
		w.s.T.Errorf("discover %s: %d %s, want port %d", module, code, text, port)
	}
}

// echoed calls the echo service at the port.
func (s *site) echoedAt(port int, message string) {
	s.T.Helper()
	ctx, cancel := context.WithTimeout(s.T.Context(), harness.Patience)
	defer cancel()
	answer := new(wrapperspb.StringValue)
	err := harness.Dial(s.T, port).Invoke(ctx, "/proto.EchoService/Echo", wrapperspb.String(message), answer)
	if err != nil || answer.GetValue() != message {
		s.T.Errorf("Echo(%q) = %q, %v", message, answer.GetValue(), err)
	}
}

// A module of HSU's newest generation and an unmodified client need only the path of the registry.
func TestModulesPublishTheirPorts(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{"hsu.yaml": `
registry: unix://${SOCKET}
units:
  echo:
    command: ["${UNIT}", -as, module, -registry, "${SOCKET}", -listen, "127.0.0.1:0,[::]:0"]
    services: [proto.EchoService]
    port: announced
    replicas: 2
`})
	socket := s.path("registry.sock")
	s.environ = []string{"UNIT=" + harness.Programs.Unit, "SOCKET=" + socket}
	m := s.start()
	before := s.AwaitRunning(2).Instances()
	if before["echo-0"].Port == 0 || before["echo-0"].Port == before["echo-1"].Port {
		t.Errorf("want two ports: %+v", before)
	}
	s.echoedAt(s.Port, "through the gateway")

	client := s.dialWire(socket)
	code, answer := client.ask(http.MethodPost, "publish",
		fmt.Sprintf(`{"ModuleID":"a-client","ProcessID":%d,"APIs":[]}`, os.Getpid()))
	if code != http.StatusOK {
		t.Errorf("a client without APIs: %d %s", code, answer)
	}
	client.wantPort("echo-module", s.Port)
	if code, answer := client.ask(http.MethodGet, "discover/nothing", ""); code != http.StatusNotFound {
		t.Errorf("an unknown module: %d %s", code, answer)
	}
	s.wantStrangersRefused(client, before["echo-0"].PID)

	m.Kill()
	m = s.start()
	s.AwaitRunning(2).WantInstances(t, before)
	s.echoedAt(s.Port, "after a crash of the master")
	client.wantPort("echo-module", s.Port) // the worker has not published it again
	if list := s.CLI("worker", "list", "--json"); !strings.Contains(list.Stdout, `"module": "echo-module"`) {
		t.Errorf("want the modules of the workers: %s", list.Stdout)
	}
	if dump := s.CLI("state", "dump", "--json"); !strings.Contains(dump.Stdout, "unix://"+socket) {
		t.Errorf("want the registry: %s", dump.Stdout)
	}
	if list := s.CLI("worker", "list"); !strings.Contains(list.Stdout, strconv.Itoa(before["echo-0"].Port)) {
		t.Errorf("want the port: %s", list.Stdout)
	}

	other := newSite(t, map[string]string{"hsu.yaml": "registry: unix://" + socket + "\nunits: {}\n"})
	second := other.Launch(other.Program, nil)
	second.WantExit(1)
	if log := second.Log(); !strings.Contains(log, socket+" is served by another master") {
		t.Errorf("the second master of the registry says: %s", log)
	}
	client.wantPort("echo-module", s.Port)
	m.Stop()
	s.WantNothingLeft()
	if _, err := os.Stat(socket); err == nil {
		t.Errorf("%s is left", socket)
	}
}

// wantStrangersRefused checks that this process, which belongs to no worker, can publish and remove nothing.
func (s *site) wantStrangersRefused(client wire, worker int) {
	s.T.Helper()
	for _, pid := range []int{os.Getpid(), worker} {
		code, answer := client.ask(http.MethodPost, "publish", fmt.Sprintf(
			`{"ModuleID":"echo-module","ProcessID":%d,"APIs":[{"ServiceIDs":["echo"],"ServerPort":1}]}`, pid))
		if code != http.StatusForbidden || !strings.Contains(answer, `"success":false,"error":"process `) {
			s.T.Errorf("published by a stranger in the name of %d: %d %s", pid, code, answer)
		}
	}
	for pid, want := range map[int]int{os.Getpid(): http.StatusBadRequest, worker: http.StatusForbidden} {
		code, answer := client.ask(http.MethodDelete, fmt.Sprintf("unpublish/echo-module?processID=%d", pid), "")
		if code != want {
			s.T.Errorf("removed by a stranger in the name of %d: %d %s, want %d", pid, code, answer, want)
		}
	}
	client.wantPort("echo-module", s.Port)
}

// A worker whose port is not clear does not start, and the reason names the ports.
func TestAnnouncedPortMustBeClear(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{"hsu.yaml": `
units:
  one:
    command: ["${UNIT}", -as, module]
    services: [proto.EchoService]
    port: announced
  two:
    command: ["${UNIT}", -as, module, -listen, "127.0.0.1:0,127.0.0.1:0"]
    port: announced
    start: {timeout: 20s}
  any:
    kind: managed
    command: ["${UNIT}", -as, module, -listen, "[::]:0"]
    port: announced
    health: {type: tcp}
`})
	s.environ = []string{"UNIT=" + harness.Programs.Unit}
	m := s.start()
	s.await("one-0", "runs", harness.Worker.Running)
	s.echoedAt(s.Port, "one listener and no registry")
	if w := s.await("any-0", "runs", up); w.Port == 0 {
		t.Errorf("want the port of %+v", w)
	}
	waiting := s.await("two-0", "waits", func(w harness.Worker) bool {
		return strings.Contains(w.WaitingFor, "it listens on the ports")
	})
	if waiting.Port != 0 || waiting.Status != "starting" {
		t.Errorf("two ports, and none published: %+v", waiting)
	}
	one := s.Dump().Worker(t, "one-0")
	if err := unix.Kill(one.PID, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.await("one-0", "runs again", func(w harness.Worker) bool { return w.Running() && w.PID != one.PID })
	s.echoedAt(s.Port, "on another port")
	m.Stop()
	s.WantNothingLeft()
}
