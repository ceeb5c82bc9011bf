//go:build e2e && linux

package units

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/e2e/testdata/echo"
)

func TestKeysOfTLS(t *testing.T) {
	t.Parallel()
	a := harness.NewAuthority(t)
	cert, key := a.Issue("master")
	mine, mineKey := a.Issue("client")
	foreign, foreignKey := harness.NewAuthority(t).Issue("client")
	s := newSite(t, map[string]string{"hsu.yaml": `
tls: {cert: "${CERT}", key: "${KEY}", client_ca: "${CA}"}
units:
  business: {command: ["${UNIT}"]}
`})
	m := s.Launch(s.Program, []string{
		"UNIT=" + harness.Programs.Unit, "CERT=" + cert, "KEY=" + key, "CA=" + a.File(),
	})
	s.AwaitRunning(1)
	call := func(flags ...string) harness.Result {
		return s.CLI(append([]string{"call", "process-data", "--data", "x", "--addr", s.Address()}, flags...)...)
	}
	if r := call("--tls-ca", a.File(), "--tls-cert", mine, "--tls-key", mineKey); r.Code != 0 {
		t.Errorf("a call by TLS: %+v", r)
	}
	for who, flags := range map[string][]string{
		"without TLS":           nil,
		"without a certificate": {"--tls-ca", a.File()},
		"of another authority":  {"--tls-ca", a.File(), "--tls-cert", foreign, "--tls-key", foreignKey},
	} {
		if r := call(flags...); r.Code == 0 {
			t.Errorf("a client %s is served: %+v", who, r)
		}
	}
	m.Stop()
	s.WantNothingLeft()
}

// The harness gives no flag but the folder of the state, so that the address is that of the file.
func TestKeyInsecure(t *testing.T) {
	t.Parallel()
	const text = `
listen: 0.0.0.0:${LISTEN}
insecure: INSECURE
units: {}
`
	s := newSite(t, map[string]string{"hsu.yaml": strings.ReplaceAll(text, "INSECURE", "false")})
	run := func() *harness.Master {
		return s.Exec(s.Program, []string{fmt.Sprint("LISTEN=", s.Port)},
			"run", "--state-dir", s.State, "--config", s.path("hsu.yaml"))
	}
	m := run()
	m.WantExit(2)
	if log := m.Log(); !strings.Contains(log, "insecure") {
		t.Errorf("the key that allows it is not named: %s", log)
	}
	s.write("hsu.yaml", strings.ReplaceAll(text, "INSECURE", "true"))
	m = run()
	m.AwaitServing()
	s.Ask("on loopback")
	m.Stop()
}

// The endpoint answers when the test allows it, so that the first call is certainly in flight.
func TestKeyMaxInFlight(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{"hsu.yaml": `
service_options:
  proto.EchoService: {max_in_flight: 1}
units: {}
`})
	came, goOn := make(chan struct{}, 2), make(chan struct{})
	server := grpc.NewServer()
	echo.Register(server, func(_ context.Context, message string) (string, error) {
		came <- struct{}{}
		<-goOn
		return message, nil
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served, held sync.WaitGroup
	served.Go(func() { _ = server.Serve(l) })
	release := sync.OnceFunc(func() { close(goOn) })
	t.Cleanup(func() {
		release()
		server.Stop()
		served.Wait()
	})
	m := s.start()
	if r := s.CLI("service", "register", echo.Service, l.Addr().String()); r.Code != 0 {
		t.Fatalf("service register: %+v", r)
	}
	conn := s.Dial()
	held.Go(func() {
		if err := callEcho(t.Context(), conn, "held", "u"); err != nil {
			t.Errorf("the call within the limit: %v", err)
		}
	})
	select {
	case <-came:
	case <-time.After(harness.Patience):
		t.Fatal("the call within the limit has not come to the endpoint")
	}
	if err := callEcho(t.Context(), conn, "too many", "u"); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a second call at once: %v, want RESOURCE_EXHAUSTED", err)
	}
	release()
	held.Wait()
	m.Stop()
}
