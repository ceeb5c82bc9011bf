// Package daemon is the process of a running master: signals, systemd, the replacement of its program in place.
package daemon

import (
	"log/slog"
	"net"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/master"
)

// Config configures [Serve].
type Config struct {
	Master   master.Options // without listeners, TLS, keeper and log, which the process has
	Address  string         // host:port to serve on
	FromFile bool           // a configuration file was read; Address is its listen, unless a flag overrides it
	TLS      api.TLSFiles
	Insecure bool   // serving other hosts without TLS is intended
	Metrics  string // host:port to serve metrics on; empty disables them
	Registry string // path of the module registry's socket; empty disables it
	Detach   bool   // leave the workers running when stopped
	LogJSON  bool
	LogLevel slog.Level

	UnitFault error // why workers cannot be started; the master still takes over living workers
	StopTime  *StopTime
}

// Exposed reports whether other hosts can reach the address without TLS and --insecure is not given.
func Exposed(ip net.IP, tls, insecure bool) bool { return !ip.IsLoopback() && !tls && !insecure }

// HowToSecure is the advice for an address that is exposed.
const HowToSecure = "secure it with --tls-cert and --tls-key, or allow it with --insecure"

// checkPassed applies the rule of --listen to a listener that systemd has passed. A unix socket is always
// allowed, because it is local.
func (cfg Config) checkPassed(l net.Listener) error { return cfg.checkAddress(l.Addr()) }

func (cfg Config) checkAddress(listener net.Addr) error {
	address, ok := listener.(*net.TCPAddr)
	if !ok || !Exposed(address.IP, cfg.TLS != (api.TLSFiles{}), cfg.Insecure) {
		return nil
	}
	return exit.Usagef("systemd passed a listener on %s, which is not a loopback address: %s, "+
		"or change ListenStream= of the socket unit",
		address, HowToSecure)
}

// discard is the logger of a check.
var discard = slog.New(slog.DiscardHandler)
