//go:build e2e && linux

package units

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// site is a host whose masters run the configuration file hsu.yaml in a folder.
type site struct {
	*harness.Host
	folder  string
	environ []string // of each master, for variables in the file
}

// newSite writes files below the folder of a new host. Those that begin with "#!" are executable.
func newSite(t *testing.T, files map[string]string) *site {
	t.Helper()
	h := harness.NewHost(t)
	s := &site{Host: h, folder: filepath.Join(h.Dir, "site")}
	for name, content := range files {
		s.write(name, content)
	}
	h.Flags = []string{"--config", s.path("hsu.yaml")}
	return s
}

// path returns the path of a file below the folder.
func (s *site) path(name string) string { return filepath.Join(s.folder, name) }

// write writes a file below the folder, and makes the folders above it.
func (s *site) write(name, content string) {
	s.T.Helper()
	harness.WriteText(s.T, s.path(name), content)
}

// start starts a master and returns when it is SERVING.
func (s *site) start(flags ...string) *harness.Master {
	s.T.Helper()
	m := s.Launch(s.Program, s.environ, flags...)
	m.AwaitServing()
	return m
}

// await returns the worker as soon as it passes.
func (s *site) await(id, what string, pass func(harness.Worker) bool) (found harness.Worker) {
	s.T.Helper()
	harness.WaitFor(s.T, id+" "+what, func() error {
		d, err := s.TryDump()
		if err != nil {
			return err
		}
		for _, w := range d.Workers {
			if w.ID == id && pass(w) {
				found = w
				return nil
			}
		}
		return fmt.Errorf("it is not: %+v", d.Workers)
	})
	return found
}

// up reports whether the worker runs and passes its health check. A worker without services is ready too.
func up(w harness.Worker) bool { return w.Status == "running" && w.PID > 0 }

// awaitUp returns the dump in which n workers run.
func (s *site) awaitUp(n int) harness.Dump {
	s.T.Helper()
	return s.AwaitWorkers(n, "run", up)
}

// listen takes a port until the returned function or the end of the test releases it.
func (s *site) listen(port int) (release func()) {
	s.T.Helper()
	l, err := net.Listen("tcp", harness.Loopback(port))
	if err != nil {
		s.T.Fatal(err)
	}
	release = func() { _ = l.Close() }
	s.T.Cleanup(release)
	return release
}

// get returns the body of a page.
func get(ctx context.Context, port int, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, harness.Patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+harness.Loopback(port)+path, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", request.URL, response.Status)
	}
	body, err := io.ReadAll(response.Body)
	return string(body), err
}
