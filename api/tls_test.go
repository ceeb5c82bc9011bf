package api

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/internal/safefile"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// The clock may be a year off: see "make clock".
func validity() (from, to time.Time) { return time.Unix(0, 0), time.Now().AddDate(10, 0, 0) }

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	from, to := validity()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

func (a authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// issue returns a certificate for name and its key, in PEM.
func (a authority) issue(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	from, to := validity()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: from, NotAfter: to,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, &private.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	bytes, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: bytes})
}

func (a authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

type tlsFolder struct{ TLSFiles }

func newTLSFolder(t *testing.T) tlsFolder {
	dir := t.TempDir()
	return tlsFolder{TLSFiles{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}}
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// shake makes a TLS handshake between server and client, and returns the name in the server's certificate.
func shake(t *testing.T, server *tls.Config, client *tls.Config) (name string, err error) {
	t.Helper()
	near, far := net.Pipe()
	for _, end := range []net.Conn{near, far} { // both sides may write at once, and a pipe has no buffer
		if err := end.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() {
		conn := tls.Server(far, server)
		done <- conn.Handshake()
		_ = conn.Close()
	}()
	defer near.Close()
	conn := tls.Client(near, client)
	err = conn.Handshake()
	if err == nil { // with TLS 1.3 the first read shows whether the server accepts the client
		_, _ = conn.Read(make([]byte, 1))
	}
	_ = near.Close()
	if e := <-done; err == nil {
		err = e
	}
	if err != nil {
		return "", err
	}
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName, nil
}

func TestCertificateFollowsItsFiles(t *testing.T) {
	a := newAuthority(t)
	files := newTLSFolder(t)
	cert, key := a.issue(t, "first")
	write(t, files.Cert, cert)
	write(t, files.Key, key)
	second, secondKey := a.issue(t, "second")
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		config, err := files.Config(slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		shown := func(want string) {
			t.Helper()
			current, err := config.GetConfigForClient(nil)
			if err != nil {
				t.Fatal(err)
			}
			leaf, err := x509.ParseCertificate(current.Certificates[0].Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			if got := leaf.Subject.CommonName; got != want {
				t.Errorf("certificate is of %q, want %q", got, want)
			}
		}
		shown("first")
		write(t, files.Cert, second) // halfway through a renewal: it does not match the key
		time.Sleep(2 * recheck)
		shown("first")
		time.Sleep(2 * recheck)
		shown("first")
		if n := strings.Count(log.String(), "certificate reload failed"); n != 1 {
			t.Errorf("%d complaints about one change, want 1: %s", n, log.String())
		}
		write(t, files.Key, secondKey)
		time.Sleep(2 * recheck)
		shown("second")
	})
}

func TestClientsNeedACertificateWhereAsked(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	files := newTLSFolder(t)
	cert, key := a.issue(t, "server")
	write(t, files.Cert, cert)
	write(t, files.Key, key)
	files.ClientCA = files.Cert + ".ca"
	write(t, files.ClientCA, a.pem())
	config, err := files.Config(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	identity := func(by authority) *tls.Config {
		cert, key := by.issue(t, "client")
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Config{
			RootCAs: a.pool(), ServerName: "server", NextProtos: []string{"h2"},
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
		}
	}
	if name, err := shake(t, config, identity(a)); err != nil || name != "server" {
		t.Errorf("a client of ours: %q, %v", name, err)
	}
	if _, err := shake(t, config, identity(other)); err == nil {
		t.Error("a client that another authority has signed was let in")
	}
	if _, err := shake(t, config, &tls.Config{
		RootCAs: a.pool(), ServerName: "server", NextProtos: []string{"h2"},
	}); err == nil {
		t.Error("a client without a certificate was let in")
	}
	if _, err := shake(t, config, &tls.Config{
		RootCAs: a.pool(), ServerName: "server", NextProtos: []string{"no-such"},
	}); err == nil {
		t.Error("a client that speaks neither HTTP/2 nor HTTP/1.1 was let in")
	}
}

// A client that uses HTTP/1.1 gets an HTTP/1.1 error, whether clients need a certificate or not.
func TestHTTP1IsRefusedInItsOwnWords(t *testing.T) {
	a := newAuthority(t)
	for name, asked := range map[string]bool{"TLS": false, "mTLS": true} {
		t.Run(name, func(t *testing.T) {
			files := newTLSFolder(t)
			cert, key := a.issue(t, "server")
			write(t, files.Cert, cert)
			write(t, files.Key, key)
			if asked {
				files.ClientCA = files.Cert + ".ca"
				write(t, files.ClientCA, a.pem())
			}
			config, err := files.Config(slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			db, s := standalone(t)
			g, err := NewGateway(GatewayOptions{
				Services: s.Services(), Business: NewBusiness(s, db), Counter: db, TLS: config,
			})
			if err != nil {
				t.Fatal(err)
			}
			l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan error, 1)
			go func() { served <- g.Serve(l) }()
			t.Cleanup(func() {
				g.Close()
				if err := <-served; err != nil {
					t.Error(err)
				}
			})
			cert, key = a.issue(t, "client")
			pair, err := tls.X509KeyPair(cert, key)
			if err != nil {
				t.Fatal(err)
			}
			transport := &http.Transport{TLSClientConfig: &tls.Config{
				RootCAs: a.pool(), ServerName: "server",
				NextProtos: []string{"http/1.1"}, Certificates: []tls.Certificate{pair},
			}}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: time.Minute}
			resp, err := client.Get("https://" + l.Addr().String()) //nolint:noctx // the client has a timeout
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if body, err := io.ReadAll(resp.Body); err != nil ||
				resp.StatusCode != http.StatusHTTPVersionNotSupported || !strings.Contains(string(body), "gRPC") {
				t.Errorf("%s %q, %v", resp.Status, body, err)
			}
		})
	}
}

func TestCertificatesThatCannotBeUsed(t *testing.T) {
	a := newAuthority(t)
	cert, _ := a.issue(t, "one")
	_, key := a.issue(t, "two")
	files := newTLSFolder(t)
	if _, err := files.Config(nil); err == nil || !strings.Contains(err.Error(), files.Cert) {
		t.Errorf("missing: %v, want the file's name", err)
	}
	write(t, files.Cert, cert)
	write(t, files.Key, key)
	if _, err := files.Config(nil); err == nil {
		t.Error("a key that does not fit was taken")
	}
	cert, key = a.issue(t, "one")
	write(t, files.Cert, cert)
	write(t, files.Key, key)
	files.ClientCA = files.Key
	if _, err := files.Config(nil); err == nil || !strings.Contains(err.Error(), "PEM") {
		t.Errorf("authorities without a certificate: %v", err)
	}
}

func TestCertificateThatExpiresIsToldOnce(t *testing.T) {
	a := newAuthority(t)
	files := newTLSFolder(t)
	cert, key := a.issue(t, "one")
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	end := pair.Leaf.NotAfter
	write(t, files.Cert, cert)
	write(t, files.Key, key)
	if err := os.Chmod(files.Key, 0o644); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		config, err := files.Config(slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct {
			before       time.Duration
			soon, passed int
		}{
			{30 * 24 * time.Hour, 0, 0},
			{13 * 24 * time.Hour, 1, 0},
			{12 * 24 * time.Hour, 1, 0},
			{-time.Hour, 1, 1},
			{-9 * time.Hour, 1, 1},
		} {
			time.Sleep(time.Until(end.Add(-step.before)))
			if _, err := config.GetConfigForClient(nil); err != nil {
				t.Fatal(err)
			}
			soon, passed := strings.Count(log.String(), "expires soon"), strings.Count(log.String(), "has expired")
			if soon != step.soon || passed != step.passed {
				t.Errorf("%v before its end it was told %d times that it expires, and %d that it has, want %d and %d",
					step.before, soon, passed, step.soon, step.passed)
			}
		}
		if n := strings.Count(log.String(), "certificate key readable by every user"); n != 1 {
			t.Errorf("told %d times that the key is open, want 1: %s", n, log.String())
		}
	})
}

// A reload that failed, for example because no descriptors were left, is tried again even if no file changes.
func TestRenewalThatFailedIsTriedAgain(t *testing.T) {
	a := newAuthority(t)
	files := newTLSFolder(t)
	cert, key := a.issue(t, "one")
	write(t, files.Cert, cert)
	write(t, files.Key, key)
	c := &certificates{files: files.TLSFiles, log: slog.New(slog.DiscardHandler), read: safefile.ReadInput}
	c.seen, c.failed = c.states(), true
	if c.fresh() == nil || c.failed {
		t.Error("it was not tried again")
	}
}

// A handshake does not wait for files that block, and files that no longer block are read.
func TestFilesThatBlockStopNoHandshake(t *testing.T) {
	a := newAuthority(t)
	files := newTLSFolder(t)
	cert, key := a.issue(t, "first")
	write(t, files.Cert, cert)
	write(t, files.Key, key)
	second, secondKey := a.issue(t, "second")
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		blocked := make(chan struct{})
		c := &certificates{
			files: files.TLSFiles,
			log:   slog.New(slog.NewTextHandler(&log, nil)),
			read:  safefile.ReadInput,
		}
		first := c.fresh()
		write(t, files.Cert, second)
		write(t, files.Key, secondKey)
		c.read = func(path string) ([]byte, error) {
			<-blocked
			return safefile.ReadInput(path)
		}
		for i, most := range []time.Duration{reloadWait, 0, 0} {
			time.Sleep(2 * recheck)
			begun := time.Now()
			if got := c.fresh(); got != first || time.Since(begun) > most {
				t.Errorf("handshake %d: another certificate (%t) after %v, want the first within %v",
					i, got != first, time.Since(begun), most)
			}
		}
		if n := strings.Count(log.String(), "certificate reload timed out"); n != 1 {
			t.Errorf("told %d times, want 1: %s", n, log.String())
		}
		close(blocked)
		synctest.Wait()
		if c.fresh() == first {
			t.Error("the second certificate is not used, though it can be read")
		}
	})
}

func TestSuitesThatHTTP2ProhibitsAreRefused(t *testing.T) {
	a := newAuthority(t)
	files := newTLSFolder(t)
	cert, key := a.issue(t, "server")
	write(t, files.Cert, cert)
	write(t, files.Key, key)
	config, err := files.Config(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for suite, want := range map[uint16]bool{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA:          false,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA:          false,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256:       true,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256: true,
	} {
		_, err := shake(t, config, &tls.Config{
			RootCAs: a.pool(), ServerName: "server", NextProtos: []string{"h2"},
			MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite},
		})
		if (err == nil) != want {
			t.Errorf("%s: %v, want it taken: %t", tls.CipherSuiteName(suite), err, want)
		}
	}
}
