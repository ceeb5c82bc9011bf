//go:build e2e && linux

package operate

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/e2e/testdata/echo"
)

// site is a host whose masters run a configuration file with the unit a.
type site struct {
	*harness.Host
	master    *harness.Master
	version   string // of the master
	installed int    // versions of the unit's program
	killed    bool   // the last step was cut off
}

// newSite returns a site whose master serves, with all of the workers running. Its listener can outlive the masters.
func newSite(t *testing.T, replicas int, order string, keepListener bool) *site {
	t.Helper()
	s := &site{Host: harness.NewHost(t)}
	if keepListener {
		s.KeepListener()
	}
	s.launch(replicas, order)
	return s
}

// launch starts the first master, and returns when all of the workers run.
func (s *site) launch(replicas int, order string) {
	s.T.Helper()
	s.Flags = []string{"--config", s.path("hsu.yaml")}
	s.installNextMaster()
	s.install()
	s.write("bad", "#!/bin/sh\nexit 3\n")
	s.write("hsu.yaml", config("./program", replicas, order))
	s.master = s.Start()
	s.AwaitRunning(replicas)
}

// config returns a file with replicas of a program that breaks off the calls in flight at SIGTERM.
func config(program string, replicas int, order string) string {
	return fmt.Sprintf(`
units:
  a:
    command: [%s, --as, abrupt, --echo]
    replicas: %d
    services: [proto.MyBusinessService, %s]
    stop: {grace: 20s}
    update: {order: %s}
`, program, replicas, echo.Service, order)
}

func (s *site) path(name string) string { return filepath.Join(s.Dir, name) }

// write writes a file, which is executable if it is a script.
func (s *site) write(name, content string) {
	s.T.Helper()
	harness.WriteText(s.T, s.path(name), content)
}

// install installs a new version of the program of the unit.
func (s *site) install() {
	s.T.Helper()
	s.installed++
	harness.Install(s.T, s.path("program"), harness.Programs.Unit, fmt.Sprint(s.installed))
}

// installNextMaster installs a master of another version.
func (s *site) installNextMaster() {
	s.T.Helper()
	if s.version == harness.OldVersion {
		s.version = harness.NewVersion
	} else {
		s.version = harness.OldVersion
	}
	s.InstallMaster(harness.MasterOf(s.T, s.version))
}

// end stops the master, and checks that nothing is left.
func (s *site) end() {
	s.T.Helper()
	s.master.Stop()
	s.WantNothingLeft()
}

// event is an item of the output of "events --json".
type event struct {
	Seq    uint64 `json:"seq"`
	Type   string `json:"type"`
	Worker string `json:"worker"`
	Unit   string `json:"unit"`
	Detail string `json:"detail"`
}

// events returns the events after that with the number.
func (s *site) events(after uint64) (list []event) {
	s.T.Helper()
	r := s.CLI("events", "--json", "--after", fmt.Sprint(after))
	if r.Code != 0 {
		s.T.Fatalf("events: %+v", r)
	}
	decoder := json.NewDecoder(strings.NewReader(r.Stdout))
	for decoder.More() {
		var e event
		if err := decoder.Decode(&e); err != nil {
			s.T.Fatalf("events: %v: %s", err, r.Stdout)
		}
		list = append(list, e)
	}
	return list
}

// lastEvent returns the number of the last event.
func (s *site) lastEvent() (seq uint64) {
	s.T.Helper()
	for _, e := range s.events(0) {
		seq = e.Seq
	}
	return seq
}
