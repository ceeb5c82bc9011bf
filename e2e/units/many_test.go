//go:build e2e && linux

package units

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// Bounds of the resources of a master with 300 workers, several times its usage.
const (
	mostMemory      = 300 << 10 // KiB
	mostDescriptors = 2000
)

// logUse logs the memory and the descriptors of a master and checks their bounds.
func logUse(t *testing.T, m *harness.Master, when string) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.PID))
	if err != nil {
		t.Fatal(err)
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", m.PID))
	if err != nil {
		t.Fatal(err)
	}
	var memory int
	for line := range strings.Lines(string(status)) {
		_, _ = fmt.Sscanf(line, "VmRSS: %d kB", &memory)
	}
	t.Logf("%s: %d KiB, %d descriptors", when, memory, len(open))
	if memory == 0 || memory > mostMemory || len(open) > mostDescriptors {
		t.Errorf("%s: it uses %d KiB and %d descriptors, want at most %d and %d",
			when, memory, len(open), mostMemory, mostDescriptors)
	}
}

// Three hundred workers of all kinds are started, kept over a crash and stopped. It does not run beside other tests,
// because it measures.
func TestThreeHundredMixedWorkers(t *testing.T) {
	clinic := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer clinic.Close()
	s := newSite(t, map[string]string{"hsu.yaml": `
defaults: {start: {timeout: 2m, settle: 100ms}, stop: {grace: 20s}}
units:
  integrated: {command: ["${UNIT}"], replicas: 100}
  tcp:
    kind: managed
    command: ["${UNIT}", --port, "{port}"]
    replicas: 50
    health: {type: tcp}
  http:
    kind: managed
    command: [sleep, "1000000"]
    replicas: 50
    health: {type: http, url: "${CLINIC}"}
  exec:
    kind: managed
    command: [sleep, "1000000"]
    replicas: 50
    health: {type: exec, command: ["true"]}
  process: {kind: managed, command: [sleep, "1000000"], replicas: 50}
`})
	const count = 300
	s.environ = []string{"UNIT=" + harness.Programs.Unit, "CLINIC=" + clinic.URL}
	begun := time.Now()
	took := func(what string) {
		t.Helper()
		t.Logf("%s: %s", what, time.Since(begun).Round(time.Millisecond))
		begun = time.Now()
	}
	m := s.start()
	before := s.awaitUp(count)
	took("all run")
	logUse(t, m, "with 300 workers")
	s.WantNoTwin(before)
	m.Kill()
	begun = time.Now()
	m = s.start()
	took("serving after a crash")
	after := s.AwaitWorkers(count, "are adopted and run", func(w harness.Worker) bool { return up(w) && w.Adopted })
	took("all adopted")
	after.WantInstances(t, before.Instances())
	s.WantNoTwin(after)
	logUse(t, m, "after their adoption")
	s.Ask("one of them")
	begun = time.Now()
	m.Stop()
	took("stopped")
	s.WantNothingLeft()
}
