//go:build e2e && linux

package upgrade

import (
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"os"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// Under TLS with certificates of clients, no call fails, a new program that could not read the certificate is refused,
// and the next one serves a certificate that was renewed.
func TestUpgradeUnderTLS(t *testing.T) {
	t.Parallel()
	a := harness.NewAuthority(t)
	cert, key := a.Issue("master")
	h := newHost(t, harness.Workers(2)...)
	h.Credentials = a.Client("client")
	h.Flags = append(h.Flags, "--tls-cert", cert, "--tls-key", key, "--tls-client-ca", a.File())
	m := h.Start()
	want := h.AwaitRunning(2).Instances()
	calls := h.StartCallers(16, harness.Once)
	calls.AwaitMore(20)
	first := serial(t, h)

	former, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.InstallMaster(harness.MasterOf(t, harness.NewVersion))
	wantRefused(h, "exited with code 2")
	calls.AwaitMore(20)
	if err := os.WriteFile(key, former, 0o600); err != nil {
		t.Fatal(err)
	}
	upgrade(h)
	wantVersion(h, harness.NewVersion)
	calls.AwaitMore(20)
	a.Issue("master")
	upgrade(h)
	if second := serial(t, h); second.Cmp(first) == 0 {
		t.Error("the new program serves the former certificate")
	}
	calls.AwaitMore(20)
	calls.Stop()
	calls.WantNoFailures()
	h.AwaitRunning(2).WantInstances(t, want)
	if got := h.Dump().ProcessedCount; got != calls.Acked.Load() {
		t.Errorf("%d requests are counted, want %d", got, calls.Acked.Load())
	}
	m.Stop()
	h.WantNothingLeft()
}

// serial returns the serial number of the certificate that the port shows.
func serial(t *testing.T, h *harness.Host) (number *big.Int) {
	t.Helper()
	conn, err := tls.Dial("tcp", h.Address(), &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // it looks at the certificate
		VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
			cert, err := x509.ParseCertificate(raw[0])
			if err == nil {
				number = cert.SerialNumber
			}
			return err
		},
	})
	if number == nil {
		t.Fatal(err)
	}
	if err == nil { // the client has no certificate, which it may learn only later
		_ = conn.Close()
	}
	return number
}
