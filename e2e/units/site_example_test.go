//go:build e2e && linux

package units

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// The example that README names runs as it says: in its order, with its user and commands, and over a crash.
func TestExampleOfASite(t *testing.T) {
	t.Parallel()
	needRoot(t)
	harness.NeedDebian(t, "redis-server", "redis-server", "--version")
	owner, err := user.Lookup("www-data") // of Debian's base-passwd
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, nil)
	if err := os.CopyFS(s.folder, os.DirFS(filepath.Join(harness.Repository, "examples", "site"))); err != nil {
		t.Fatal(err)
	}
	s.admitAll()
	s.Flags = []string{"--config", s.path("hsu-master.yaml")}
	web := harness.FreePort(t)
	s.environ = []string{fmt.Sprint("STORE_PORT=", harness.FreePort(t)), fmt.Sprint("WEB_PORT=", web)}

	m := s.start()
	want := map[string]string{
		"store-0": "running", "migrate-0": "completed", "web-0": "running", "backup-0": "scheduled",
	}
	asWanted := func(w harness.Worker) bool { return w.Status == want[w.ID] }
	before := s.AwaitWorkers(len(want), "are as the example says", asWanted)
	if r := s.CLI("status"); r.Code != 0 {
		t.Errorf("status: %+v", r)
	}
	if page, err := get(t.Context(), web, "/"); err != nil || !strings.Contains(page, "It works") {
		t.Errorf("the page is %q, %v", page, err)
	}
	m.Kill()
	m = s.start()
	after := s.AwaitWorkers(len(want), "are so after a crash", asWanted)
	for i, w := range after.Workers {
		if w.PID != before.Workers[i].PID || w.Incarnation != before.Workers[i].Incarnation {
			t.Errorf("%s is process %d of incarnation %d, was %d of %d",
				w.ID, w.PID, w.Incarnation, before.Workers[i].PID, before.Workers[i].Incarnation)
		}
		if w.ID == "web-0" {
			uid, _, _ := strings.Cut(statusOf(t, fmt.Sprintf("/proc/%d/status", w.PID))["Uid"], " ")
			if uid != owner.Uid {
				t.Errorf("web runs as user %s, want %s", uid, owner.Uid)
			}
		}
	}
	m.Stop()
	output, err := os.ReadFile(filepath.Join(s.State, "logs", "web-0.log"))
	if err != nil {
		t.Fatal(err)
	}
	// The store answered until web had ended.
	drained, ended := strings.Index(string(output), ", stop 1\n"), strings.Index(string(output), "web has ended: ")
	if drained < 0 || ended < drained {
		t.Errorf("the log has not drain.sh before ended.sh:\n%s", output)
	}
	s.WantNothingLeft()
}
