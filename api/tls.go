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
)

// TLSFiles are what the public port is secured with. Cert and Key are PEM files that
// belong together; with ClientCA, callers must show a certificate that one of its
// authorities has signed (mTLS).
type TLSFiles struct{ Cert, Key, ClientCA string }

// Config reads the files and returns a configuration that follows them: a handshake
// that finds one of them changed reads all anew, and where they do not fit each other,
// as halfway through a renewal, the last good ones stay in use and log is told, once a change.
// It is told as well, once each, when the certificate in use is about to expire and when it has.
func (f TLSFiles) Config(log *slog.Logger) (*tls.Config, error) {
	c := &certificates{files: f, log: log}
	if err := c.load(); err != nil {
		return nil, err
	}
	c.warn(time.Now())
	if info, err := os.Stat(f.Key); err == nil && info.Mode().Perm()&0o004 != 0 && runtime.GOOS != "windows" {
		log.Warn("key of the certificate can be read by every user", "file", f.Key, "mode", info.Mode().Perm().String())
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.fresh(), nil },
	}, nil
}

// protocols are offered by ALPN: HTTP/1.1 only so that who speaks that is told what the port speaks.
var protocols = []string{"h2", "http/1.1"}

// recheck is how long files that were looked at are taken for unchanged.
const recheck = time.Second

type certificates struct {
	files TLSFiles
	log   *slog.Logger

	mu      sync.Mutex
	current *tls.Config
	seen    [3]fileState // as they were read last, fitting or not
	checked time.Time
	failed  bool // what was read last did not fit

	leaf  *x509.Certificate // the one in use
	state string            // of it, as it was told last
}

// expiresSoon is how long before its end a certificate is warned of: time to find out why it was not renewed.
const expiresSoon = 14 * 24 * time.Hour

// warn tells of a certificate that callers refuse, or soon will.
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
		c.log.Warn("certificate to be renewed", "reason", state, "file", c.files.Cert, "not_before", c.leaf.NotBefore, "not_after", c.leaf.NotAfter)
	}
	c.state = state
}

// fileState tells a file from what was in its place before.
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

func (c *certificates) fresh() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) < recheck {
		return c.current
	}
	c.checked = time.Now()
	defer c.warn(c.checked) // of the one that is in use then
	states := c.states()
	changed := !states[0].same(c.seen[0]) || !states[1].same(c.seen[1]) || !states[2].same(c.seen[2])
	if !changed && !c.failed {
		return c.current
	}
	// What could not be read may be readable by now, though nothing of it has changed.
	err := c.load()
	c.failed = err != nil
	switch {
	case err == nil:
		c.log.Info("certificate renewed", "file", c.files.Cert)
	case changed:
		c.log.Error("certificate not renewed, the last one stays in use", "error", err)
	}
	return c.current
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

// load reads the files. What it has seen is noted before, so that a change meanwhile
// is one.
func (c *certificates) load() error {
	c.seen = c.states()
	pair, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err != nil {
		return fmt.Errorf("certificate %s with key %s: %w", c.files.Cert, c.files.Key, err)
	}
	next := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		NextProtos:   protocols,
		Certificates: []tls.Certificate{pair},
	}
	if c.files.ClientCA != "" {
		pem, err := os.ReadFile(c.files.ClientCA)
		if err != nil {
			return fmt.Errorf("authorities for clients: %w", err)
		}
		next.ClientCAs = x509.NewCertPool()
		if !next.ClientCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("authorities for clients: %w", errors.New(c.files.ClientCA+" has no certificate in it: want PEM"))
		}
		next.ClientAuth = tls.RequireAndVerifyClientCert
	}
	c.current, c.leaf, c.state = next, pair.Leaf, ""
	return nil
}
