//go:build e2e && linux

package gateway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// authority signs certificates and writes them to a folder.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir(), key: newKey(t)}
	a.cert = a.sign("authority", &x509.Certificate{
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, &a.key.PublicKey)
	a.write("authority", "CERTIFICATE", a.cert.Raw)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) sign(name string, template *x509.Certificate, key *ecdsa.PublicKey) *x509.Certificate {
	a.t.Helper()
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.Subject = pkix.Name{CommonName: name}
	template.NotBefore, template.NotAfter = time.Now().Add(-24*time.Hour), time.Now().Add(24*time.Hour)
	parent := a.cert
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

// issue writes a certificate for loopback and its key, as NAME.pem and NAME-key.pem.
func (a *authority) issue(name string) (cert, key string) {
	a.t.Helper()
	private := newKey(a.t)
	signed := a.sign(name, &x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, &private.PublicKey)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.write(name, "CERTIFICATE", signed.Raw), a.write(name+"-key", "PRIVATE KEY", der)
}

func (a *authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name+".pem")
	if err := os.WriteFile(path+".new", pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		a.t.Fatal(err)
	}
	return path
}

func (a *authority) file() string { return filepath.Join(a.dir, "authority.pem") }

func TestPortIsSecuredByCertificatesThatAreRenewed(t *testing.T) {
	t.Parallel()
	a, other := newAuthority(t), newAuthority(t)
	cert, key := a.issue("master")
	mine, mineKey := a.issue("client")
	foreign, foreignKey := other.issue("client")
	h := harness.NewHost(t, harness.Workers(2)...)
	h.Flags = append(h.Flags, "--tls-cert", cert, "--tls-key", key, "--tls-client-ca", a.file())
	m := h.Launch(harness.Programs.Master, nil)
	call := func(flags ...string) harness.Result {
		return h.CLI(append([]string{"call", "process-data", "--data", "x", "--addr", h.Address()}, flags...)...)
	}
	known := []string{"--tls-ca", a.file(), "--tls-cert", mine, "--tls-key", mineKey}
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
	refused("a client without a certificate", "--tls-cert", "--tls-ca", a.file())
	refused("a client of another authority", "--tls-cert", "--tls-ca", a.file(), "--tls-cert", foreign,
		"--tls-key", foreignKey)
	refused("a master that is not the one", "--tls-ca", "--tls-ca", other.file(),
		"--tls-cert", mine, "--tls-key", mineKey)

	// From now on, the master's certificate is signed by another authority, without a restart.
	renew(h, other, cert, key)
	harness.WaitFor(t, "a call by the new certificate", func() error {
		r := call("--tls-ca", other.file(), "--tls-cert", mine, "--tls-key", mineKey)
		if r.Code != 0 {
			return fmt.Errorf("%d: %s", r.Code, r.Stderr)
		}
		return nil
	})
	if got := strings.Count(m.Log(), "certificate reloaded"); got != 1 {
		t.Errorf("renewed %d times, want once: %s", got, m.Log())
	}
	m.Stop()
	h.WantNothingLeft()
}

// renew replaces a certificate by a new one that the authority has signed.
func renew(h *harness.Host, by *authority, cert, key string) {
	h.T.Helper()
	newCert, newKey := by.issue("renewed")
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
	a := newAuthority(t)
	cert, _ := a.issue("one")
	_, key := a.issue("two")
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
