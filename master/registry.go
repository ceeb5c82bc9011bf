package master

import (
	"context"
	"net"

	"github.com/core-tools/hsu-master/api/registrywire"
)

// registryURL returns the URL of the module registry, "" if none is served.
func (m *Master) registryURL() string {
	if m.registry == nil {
		return ""
	}
	return "unix://" + m.registry.Addr().String()
}

// serveRegistry serves the module registry until ctx is done. A failure is logged and does not end the master.
func (m *Master) serveRegistry(ctx context.Context) {
	port, obstacle := localPort(m.listener.Addr())
	if m.options.TLS != nil {
		obstacle = "it serves TLS"
	}
	if obstacle != "" {
		m.log.Warn("gateway closed to clients of the module registry", "reason", obstacle)
	}
	m.log.Info("module registry served", "path", m.registry.Addr().String())
	server := registrywire.Server{Modules: m.sup.Modules(), Port: port, Log: m.log}
	if err := server.Serve(ctx, m.registry); err != nil {
		m.log.Error("module registry failed", "error", err)
	}
}

// localPort returns the port of an address to which clients on this host can connect by the name localhost, or 0 and
// the obstacle.
func localPort(address net.Addr) (port int, obstacle string) {
	tcp, ok := address.(*net.TCPAddr)
	if !ok {
		return 0, "it listens on no TCP port"
	}
	if !tcp.IP.IsLoopback() && !tcp.IP.IsUnspecified() {
		obstacle = "it does not listen on a loopback address"
	}
	return tcp.Port, obstacle
}
