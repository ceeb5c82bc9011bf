//go:build e2e && linux

package units

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"

	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/e2e/harness"
)

func (s *site) backups() []string {
	paths, _ := filepath.Glob(filepath.Join(s.State, "backups", "*.db"))
	return paths
}

// The flags of the harness would override the file, so this test gives none but the folder of the state.
func TestKeysOfTheMaster(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{"hsu.yaml": `
listen: 127.0.0.1:${LISTEN}
metrics: 127.0.0.1:${METRICS}
sync: interval
on_damage: recover
backup: {interval: 1s, keep: 2}
request_ttl: 1s
log: {format: json, level: debug}
units:
  business: {command: ["${UNIT}"]}
`})
	metrics := harness.FreePort(t)
	s.environ = []string{
		"UNIT=" + harness.Programs.Unit, fmt.Sprint("LISTEN=", s.Port), fmt.Sprint("METRICS=", metrics),
	}
	start := func() *harness.Master {
		m := s.Exec(s.Program, s.environ, "run", "--state-dir", s.State, "--config", s.path("hsu.yaml"))
		m.AwaitServing() // on the port of the file
		return m
	}
	m := start()
	before := s.AwaitRunning(1).Instances()
	s.wantCountedAgain("request_ttl")
	if page, err := get(t.Context(), metrics, "/metrics"); !strings.Contains(page, "hsu_") {
		t.Errorf("the metrics are %.200q, %v", page, err)
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	if log := m.Log(); !strings.HasPrefix(log, "{") || !strings.Contains(log, `"level":"DEBUG","msg":"call ended"`) {
		t.Errorf("want a log in JSON with the level debug:\n%s", log)
	}
	var first []string
	harness.WaitFor(t, "old backups are replaced", func() error {
		s.Ask("something changes")
		all := s.backups()
		if len(first) == 0 {
			first = all
		}
		if len(all) != 2 || len(first) == 0 || all[0] == first[0] {
			return fmt.Errorf("there are %v, first were %v", all, first)
		}
		return nil
	})
	m.Kill()

	database := filepath.Join(s.State, "state.db")
	if err := os.WriteFile(database, []byte(strings.Repeat("damaged", 10_000)), 0o600); err != nil {
		t.Fatal(err)
	}
	m = start() // instead of exit code 5
	s.AwaitRunning(1).WantInstances(t, before)
	m.Stop()
	s.WantNothingLeft()
}

// wantCountedAgain sends a request with the same id until it is counted a second time: as soon as the master has
// forgotten it.
func (s *site) wantCountedAgain(id string) {
	s.T.Helper()
	client := proto.NewMyBusinessServiceClient(s.Dial())
	marked := metadata.AppendToOutgoingContext(s.T.Context(), harness.RequestID, id)
	ctx, cancel := context.WithTimeout(marked, 2*harness.Patience)
	defer cancel()
	harness.WaitFor(s.T, "the request is forgotten", func() error {
		if _, err := client.ProcessData(ctx, &proto.ProcessRequest{Data: "x"}); err != nil {
			return err
		}
		if got := s.Dump().ProcessedCount; got < 2 {
			return errors.New("it is counted once")
		}
		return nil
	})
}
