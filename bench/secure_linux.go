package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// forwardSecure measures relayed calls of clients that use TLS, against HAProxy with the same certificate. The worker
// is reached without TLS, as by default.
func forwardSecure(ctx context.Context, l *lab) ([]row, error) {
	if _, err := l.findPeer(ctx, peerHAProxy); err != nil {
		return []row{unmeasured(rowForwardTLS, err.Error()), unmeasured(rowForwardTLSCPU, err.Error())}, nil
	}
	secure, err := newCertificate(l.dir)
	if err != nil {
		return nil, err
	}
	const callers = 64
	result, err := l.play(ctx, contest{
		sides: []string{sideProduct, peerHAProxy},
		calls: calls{
			service: serviceForward, callers: callers, conns: callers / callersPerConn, size: small, secure: secure,
		},
		turn: l.callTurn(),
	})
	if err != nil {
		return nil, err
	}
	product, haproxy := result[sideProduct], result[peerHAProxy]
	r := newRow(rowForwardTLS, product.perSecond, haproxy.perSecond)
	r.productLatency, r.baselineLatency = product.median(), haproxy.median()
	return []row{r, newRow(rowForwardTLSCPU, product.cpu, haproxy.cpu)}, nil
}

// certificate is one for 127.0.0.1 that has signed itself. A nil certificate means: no TLS.
type certificate struct {
	cert, key, both string // PEM files
}

// newCertificate makes the files in dir.
func newCertificate(dir string) (*certificate, error) {
	fail := func(err error) (*certificate, error) { return nil, fmt.Errorf("make a certificate: %w", err) }
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fail(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:        true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fail(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fail(err)
	}
	certText := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	keyText := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	c := &certificate{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "both.pem")}
	err = errors.Join(os.WriteFile(c.cert, certText, 0o600), os.WriteFile(c.key, keyText, 0o600),
		os.WriteFile(c.both, append(certText, keyText...), 0o600))
	if err != nil {
		return fail(err)
	}
	return c, nil
}

// path returns the file that a client trusts.
func (c *certificate) path() string {
	if c == nil {
		return ""
	}
	return c.cert
}

// flags returns those of a master.
func (c *certificate) flags() []string {
	if c == nil {
		return nil
	}
	return []string{"--tls-cert", c.cert, "--tls-key", c.key}
}

// haproxy returns the options of HAProxy's port.
func (c *certificate) haproxy() string {
	if c == nil {
		return "proto h2"
	}
	return "ssl crt " + c.both + " alpn h2"
}

func (c *certificate) client() (credentials.TransportCredentials, error) {
	return clientCredentials(c.path())
}

// clientCredentials returns those of a client that trusts the certificate in a file, or uses no TLS without one.
func clientCredentials(path string) (credentials.TransportCredentials, error) {
	if path == "" {
		return insecure.NewCredentials(), nil
	}
	secured, err := credentials.NewClientTLSFromFile(path, "")
	if err != nil {
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	return secured, nil
}
