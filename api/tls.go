package api

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/core-tools/hsu-master/internal/safefile"
)

// TLSFiles are the files that configure TLS on the public port. Cert and Key are PEM files that belong together.
// If ClientCA is set, clients must present a certificate signed by one of its authorities (mTLS).
type TLSFiles struct{ Cert, Key, ClientCA string }

// Config reads the files and returns a configuration that follows their changes. A handshake that finds a file
// changed reloads all files. If they do not match, as halfway through a renewal, the previous ones stay in use
// and the error is logged once per change. A warning is logged once when the certificate in use is about to
// expire, and once when it has expired.
func (f TLSFiles) Config(log *slog.Logger) (*tls.Config, error) { return f.ConfigNoting(log, nil) }

// ConfigNoting is Config. It also calls noted, unless it is nil, for each reload: with the error if the files cannot be
// used, once per change. noted must not block.
func (f TLSFiles) ConfigNoting(log *slog.Logger, noted func(error)) (*tls.Config, error) {
	c := &certificates{files: f, log: log, read: safefile.ReadInput, noted: noted}
	var err error
	if c.current, err = c.load(); err != nil {
		return nil, err
	}
	c.warn(time.Now())
	if info, err := os.Stat(f.Key); err == nil && info.Mode().Perm()&0o004 != 0 && runtime.GOOS != "windows" {
		log.Warn("certificate key readable by every user", "path", f.Key, "mode", info.Mode().Perm().String())
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.fresh(), nil },
	}, nil
}

// protocols are offered by ALPN. HTTP/1.1 is included only so that an HTTP/1.1 client gets an error that it can
// read.
var protocols = []string{"h2", "http/1.1"}

// cipherSuites are the TLS 1.2 suites that HTTP/2 permits: RFC 9113, appendix A, prohibits those without forward
// secrecy and those with CBC. TLS 1.3 has its own suites.
var cipherSuites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// recheck is the minimum time between two checks of the files for changes.
const recheck = time.Second

// reloadWait bounds how long a handshake waits for changed files: a network file system can block forever.
const reloadWait = time.Second

type certificates struct {
	files TLSFiles
	log   *slog.Logger
	read  func(path string) ([]byte, error)
	noted func(error)

	mu        sync.Mutex
	current   *tls.Config
	checked   time.Time     // when the last reload began
	reloading chan struct{} // closed at the end of the running reload; nil if none is running

	// Used only by the reload; at most one runs at a time.
	seen   [3]fileState // the files when last read, whether they matched or not
	failed bool         // the last reload failed
	leaf   *x509.Certificate
	state  string // of leaf, as last logged
}

// expiresSoon is how long before its expiry a warning about a certificate is logged. It leaves time to find out
// why the certificate was not renewed.
const expiresSoon = 14 * 24 * time.Hour

// warn logs a warning if callers refuse the certificate now or will soon.
func (c *certificates) warn(now time.Time) {
	state := ""
	switch {
	case now.After(c.leaf.NotAfter):
		state = "it has expired: callers refuse it"
	case now.Before(c.leaf.NotBefore):
		state = "it is not valid yet: callers refuse it"
	case now.After(c.leaf.NotAfter.Add(-expiresSoon)):
		state = "it expires soon"
	}
	if state != c.state && state != "" {
		c.log.Warn("certificate renewal due", "reason", state, "path", c.files.Cert,
			"not_before", c.leaf.NotBefore, "not_after", c.leaf.NotAfter)
	}
	c.state = state
}

// fileState identifies a version of a file, to detect changes.
type fileState struct {
	modified time.Time
	size     int64
	info     fs.FileInfo // for its inode
}

func (s fileState) same(t fileState) bool {
	if s.info == nil || t.info == nil {
		return s.info == t.info
	}
	return s.size == t.size && s.modified.Equal(t.modified) && os.SameFile(s.info, t.info)
}

// fresh returns the configuration of the current files, or the one in use if they cannot be read in time.
func (c *certificates) fresh() *tls.Config {
	c.mu.Lock()
	due := c.reloading == nil && time.Since(c.checked) >= recheck
	if due {
		c.checked, c.reloading = time.Now(), make(chan struct{})
		go c.reload(c.reloading)
	}
	current, reloading, left := c.current, c.reloading, reloadWait-time.Since(c.checked)
	c.mu.Unlock()
	if reloading == nil || left <= 0 {
		return current
	}
	late := time.NewTimer(left)
	defer late.Stop()
	select {
	case <-reloading:
	case <-late.C:
		if due {
			c.log.Error("certificate reload timed out", "path", c.files.Cert, "timeout", reloadWait)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current
}

// reload reads the files if they have changed, and closes done at the end.
func (c *certificates) reload(done chan struct{}) {
	next := c.changed()
	c.warn(time.Now())
	c.mu.Lock()
	defer c.mu.Unlock()
	if next != nil {
		c.current = next
	}
	c.reloading = nil
	close(done)
}

// changed returns the new configuration if the files have changed, and nil if the current one stays in use.
func (c *certificates) changed() *tls.Config {
	states := c.states()
	changed := !states[0].same(c.seen[0]) || !states[1].same(c.seen[1]) || !states[2].same(c.seen[2])
	if !changed && !c.failed {
		return nil
	}
	// Retry after a failed reload even if no file has changed: a file may have become readable.
	next, err := c.load()
	c.failed = err != nil
	switch {
	case err == nil:
		c.log.Info("certificate reloaded", "path", c.files.Cert)
	case changed:
		c.log.Error("certificate reload failed", "path", c.files.Cert, "error", err)
	default:
		return next
	}
	if c.noted != nil {
		c.noted(err)
	}
	return next
}

func (c *certificates) states() (states [3]fileState) {
	for i, path := range []string{c.files.Cert, c.files.Key, c.files.ClientCA} {
		if path == "" {
			continue
		}
		if info, err := os.Stat(path); err == nil {
			states[i] = fileState{info.ModTime(), info.Size(), info}
		}
	}
	return states
}

// load reads the files. It records their state before it reads them, so that a change during the read is detected
// later.
func (c *certificates) load() (*tls.Config, error) {
	c.seen = c.states()
	pair, err := keyPair(c.read, c.files.Cert, c.files.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", c.files.Cert, c.files.Key, err)
	}
	next := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		CipherSuites: cipherSuites,
		NextProtos:   protocols,
		Certificates: []tls.Certificate{pair},
	}
	if c.files.ClientCA != "" {
		pem, err := c.read(c.files.ClientCA)
		if err != nil {
			return nil, fmt.Errorf("authorities for clients: %w", err)
		}
		next.ClientCAs = x509.NewCertPool()
		if !next.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("authorities for clients: %w",
				errors.New(c.files.ClientCA+" has no certificate in it: must be PEM"))
		}
		next.ClientAuth = tls.RequireAndVerifyClientCert
	}
	c.leaf, c.state = pair.Leaf, ""
	return next, nil
}

// KeyPair reads a certificate and its key.
func KeyPair(cert, key string) (tls.Certificate, error) {
	return keyPair(safefile.ReadInput, cert, key)
}

func keyPair(read func(string) ([]byte, error), certFile, keyFile string) (tls.Certificate, error) {
	cert, err := read(certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := read(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}
