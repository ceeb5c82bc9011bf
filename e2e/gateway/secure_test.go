//go:build e2e && linux

package gateway

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

func TestPortIsSecuredByCertificatesThatAreRenewed(t *testing.T) {
	t.Parallel()
	a, other := harness.NewAuthority(t), harness.NewAuthority(t)
	cert, key := a.Issue("master")
	mine, mineKey := a.Issue("client")
	foreign, foreignKey := other.Issue("client")
	h := harness.NewHost(t, harness.Workers(2)...)
	h.Flags = append(h.Flags, "--tls-cert", cert, "--tls-key", key, "--tls-client-ca", a.File())
	m := h.Launch(harness.Programs.Master, nil)
	call := func(flags ...string) harness.Result {
		return h.CLI(append([]string{"call", "process-data", "--data", "x", "--addr", h.Address()}, flags...)...)
	}
	known := []string{"--tls-ca", a.File(), "--tls-cert", mine, "--tls-key", mineKey}
	harness.WaitFor(t, "a call by TLS", func() error {
		if r := call(known...); r.Code != 0 || strings.TrimSpace(r.Stdout) != "Processed: x" {
			return fmt.Errorf("%d: %s%s", r.Code, r.Stdout, r.Stderr)
		}
		return nil
	})
	refused := func(what, says string, flags ...string) {
		t.Helper()
		if r := call(flags...); r.Code == 0 || !strings.Contains(r.Stderr, says) {
			t.Errorf("%s: exit code %d, %q, want it refused and %q", what, r.Code, r.Stderr, says)
		}
	}
	refused("a client without TLS", "hint:")
	refused("a client without a certificate", "--tls-cert", "--tls-ca", a.File())
	refused("a client of another authority", "--tls-cert", "--tls-ca", a.File(), "--tls-cert", foreign,
		"--tls-key", foreignKey)
	refused("a master that is not the one", "--tls-ca", "--tls-ca", other.File(),
		"--tls-cert", mine, "--tls-key", mineKey)

	// From now on, the master's certificate is signed by another authority, without a restart.
	renew(h, other, cert, key)
	harness.WaitFor(t, "a call by the new certificate", func() error {
		r := call("--tls-ca", other.File(), "--tls-cert", mine, "--tls-key", mineKey)
		if r.Code != 0 {
			return fmt.Errorf("%d: %s", r.Code, r.Stderr)
		}
		return nil
	})
	if got := strings.Count(m.Log(), "certificate reloaded"); got != 1 {
		t.Errorf("renewed %d times, want once: %s", got, m.Log())
	}
	harness.WaitFor(t, "the event of the renewal", func() error {
		if r := h.CLI("events", "--type", "certificate-reloaded"); strings.Count(r.Stdout, "\n") != 1 {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	m.Stop()
	h.WantNothingLeft()
}

// renew replaces a certificate by a new one that the authority has signed.
func renew(h *harness.Host, by *harness.Authority, cert, key string) {
	h.T.Helper()
	newCert, newKey := by.Issue("renewed")
	for from, to := range map[string]string{newKey: key, newCert: cert} {
		if err := os.Rename(from, to); err != nil {
			h.T.Fatal(err)
		}
	}
}

func TestPortIsOpenedWideOnlyByAWord(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, "--listen", "0.0.0.0")
	h.Launch(harness.Programs.Master, nil).WantExit(2)
	h.Flags = append(h.Flags, "--insecure")
	m := h.Start()
	h.Ask("x")
	m.Stop()
}

func TestCertificateThatCannotBeUsedIsTold(t *testing.T) {
	t.Parallel()
	a := harness.NewAuthority(t)
	cert, _ := a.Issue("one")
	_, key := a.Issue("two")
	h := harness.NewHost(t, "--tls-cert", cert, "--tls-key", key)
	m := h.Launch(harness.Programs.Master, nil)
	m.WantExit(2)
	if log := m.Log(); !strings.Contains(log, cert) {
		t.Errorf("the file is not named: %s", log)
	}
}

func TestFiguresAreShownToPrometheus(t *testing.T) {
	t.Parallel()
	port := harness.FreePort(t)
	h := harness.NewHost(t, append(harness.Workers(2), "--metrics", harness.Loopback(port))...)
	m := h.Start()
	h.AwaitRunning(2)
	for range 5 {
		h.Ask("x")
	}
	resp, err := http.Get("http://" + harness.Loopback(port) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"hsu_master_processed_total 5\n", "hsu_master_workers{status=\"running\"} 2\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("missing %q in:\n%s", want, text)
		}
	}
	calls := 0
	for _, worker := range []string{"worker-0", "worker-1"} {
		_, line, _ := strings.Cut(string(text),
			fmt.Sprintf("hsu_master_calls_total{endpoint=%q,service=\"proto.MyBusinessService\"} ", worker))
		var n int
		if _, err := fmt.Sscan(line, &n); err != nil {
			t.Errorf("calls of %s: %v", worker, err)
		}
		calls += n
	}
	if calls != 5 {
		t.Errorf("the workers had %d calls, want 5", calls)
	}
	m.Stop()
}

func TestMasterListensOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	m := h.Start()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		network, ok := a.(*net.IPNet)
		if !ok || network.IP.IsLoopback() || network.IP.IsLinkLocalUnicast() {
			continue
		}
		conn, err := net.Dial("tcp", net.JoinHostPort(network.IP.String(), fmt.Sprint(h.Port)))
		if err == nil {
			_ = conn.Close()
			t.Errorf("it answers on %s", network.IP)
		} else if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Logf("%s: %v", network.IP, err)
		}
	}
	m.Stop()
}
