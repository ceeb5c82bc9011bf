//go:build e2e && linux

package world

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// The exit code of a container whose first process is a master tells how the essential worker ended.
func TestContainerEndsWithTheEssentialWorker(t *testing.T) {
	for code, want := range map[int]int{0: 0, 3: 1} {
		t.Run(fmt.Sprint("code ", code), func(t *testing.T) {
			t.Parallel()
			h := harness.NewHost(t)
			h.Begin = asFirst(t)
			path := filepath.Join(h.Dir, "hsu.yaml")
			file := fmt.Sprintf("defaults: {kind: managed}\nunits:\n"+
				"  job: {command: [sh, -c, 'sleep 0.3; exit %d'], essential: true, restart: {policy: never}}\n"+
				"  beside: {command: [sleep, \"1000\"]}\n", code)
			if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
				t.Fatal(err)
			}
			h.Flags = []string{"--config", path}
			for range 2 { // docker start after docker run
				m := h.Launch(h.Program, nil)
				m.WantExit(want)
				if log := m.Log(); !strings.Contains(log, "essential worker ended, master stopping") {
					t.Errorf("the log is %s", log)
				}
			}
			h.WantNothingLeft()
		})
	}
}
