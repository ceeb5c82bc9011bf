//go:build e2e && linux

package gateway

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/e2e/testdata/echo"
)

// The tests of the gateway call services through the master's port: some are offered by its workers, some are
// registered endpoints.

// offer is a service that is not offered by the master's workers.
type offer struct{ service, address string }

// openGateway starts a master without workers that offers these services, and returns its address and PID. It is
// stopped when the test ends.
var openGateway = func(t *testing.T, offers ...offer) (address string, pid int) {
	t.Helper()
	h := harness.NewHost(t)
	m := h.Start()
	t.Cleanup(m.Stop) // before the host checks for leftovers
	register(h, offers...)
	return h.Address(), m.PID
}

// register registers services, and returns when all are ready.
func register(h *harness.Host, offers ...offer) {
	h.T.Helper()
	for _, o := range offers {
		if r := h.CLI("service", "register", o.service, o.address); r.Code != 0 {
			h.T.Fatalf("register %s at %s: exit code %d: %s", o.service, o.address, r.Code, r.Stderr)
		}
	}
	harness.WaitFor(h.T, "what was registered is ready", func() error {
		d, err := h.TryDump()
		if err != nil {
			return err
		}
		for _, o := range offers {
			if !slices.Contains(addresses(d, o.service), o.address) {
				return fmt.Errorf("%s at %s is not, of %+v", o.service, o.address, d.Services)
			}
		}
		return nil
	})
}

// addresses returns the addresses of the endpoints that get calls of a service.
func addresses(d harness.Dump, service string) (healthy []string) {
	for _, s := range d.Services {
		for _, e := range s.Endpoints {
			if s.Name == service && e.Healthy {
				healthy = append(healthy, e.Address)
			}
		}
	}
	return healthy
}

// serve serves until the test ends, and returns the address.
func serve(t *testing.T, server *grpc.Server) string {
	t.Helper()
	l := listen(t)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-done })
	return l.Addr().String()
}

// The HSU echo unit: proto.EchoService with one method, whose request and answer have the message in field 1, like
// StringValue.
const echoService, echoMethod = echo.Service, echo.Method

// registerEcho registers Echo on a server of the test.
func registerEcho(server *grpc.Server) {
	echo.Register(server, func(_ context.Context, message string) (string, error) { return message, nil })
}

// echoes returns the flags that run one echo unit for each of the habits.
func echoes(h *harness.Host, habits ...string) []string {
	return append(h.Units(habits...), "--worker-service", echoService)
}

// wireTools are third-party programs that speak gRPC or HTTP/2, pinned in tools/wire and built when the first test
// needs one.
var wireTools = sync.OnceValues(func() (dir string, err error) {
	dir = filepath.Join(harness.Programs.Dir, "wire")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", dir, "tool")
	cmd.Dir = filepath.Join(harness.Repository, "tools", "wire")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the tools of %s: %w\n%s", cmd.Dir, err, output)
	}
	return dir, nil
})

// wireTool returns the path of one of them.
func wireTool(t *testing.T, name string) string {
	t.Helper()
	dir, err := wireTools()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// residentSize returns the resident memory of a process in bytes.
func residentSize(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		kib := 0
		if _, err := fmt.Sscanf(line, "Rss: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	t.Fatal(errors.New("no line says Rss"))
	return 0
}

// wantSize checks that the process's resident memory is at most 64 MiB above before. The garbage collector returns what
// it frees to the system a little later, on a busy machine much later.
func wantSize(t *testing.T, pid, before int) {
	t.Helper()
	harness.WaitFor(t, "little memory is used", func() error {
		if grown := residentSize(t, pid) - before; grown > 64<<20 {
			return fmt.Errorf("the process has grown by %d MiB", grown>>20)
		}
		return nil
	})
}

// awaitService returns when n ready endpoints offer the service.
func awaitService(h *harness.Host, name string, n int) {
	h.T.Helper()
	harness.WaitFor(h.T, fmt.Sprintf("%d endpoints offer %s", n, name), func() error {
		d, err := h.TryDump()
		if err != nil {
			return err
		}
		if got := len(addresses(d, name)); got != n {
			return fmt.Errorf("there are %d", got)
		}
		return nil
	})
}
