package master

import (
	"context"
	"net"
	"sync"

	"github.com/core-tools/hsu-master/api/registrywire"
)

// registryURL returns the URL of the module registry, "" if none is served.
func (m *Master) registryURL() string {
	if m.registry == nil {
		return ""
	}
	return "unix://" + m.registry.current().Addr().String()
}

// serveRegistry serves the module registry until ctx is done. A failure is logged and does not end the master. Modules
// and clients find the registry only by the path of its socket, so the socket is restored if it is deleted or replaced.
func (m *Master) serveRegistry(ctx context.Context) {
	port, obstacle := localPort(m.listener.Addr())
	if m.options.TLS != nil {
		obstacle = "it serves TLS"
	}
	if obstacle != "" {
		m.log.Warn("gateway closed to clients of the module registry", "reason", obstacle)
	}
	first := m.registry.current()
	m.log.Info("module registry served", "path", first.Addr().String())
	server := registrywire.Server{Modules: m.sup.Modules(), Port: port, Log: m.log}
	serve := func(l net.Listener) {
		if err := server.Serve(ctx, l); err != nil {
			m.log.Error("module registry failed", "error", err)
		}
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		select {
		case <-m.ready:
		case <-ctx.Done():
		}
		keeper{
			socket: m.registry,
			listen: func(context.Context) (net.Listener, error) { return m.options.ListenRegistry() },
			serve: func(l net.Listener) error {
				m.log.Warn("module registry restored", "path", l.Addr().String())
				wg.Go(func() { serve(l) })
				return nil
			},
			failed: func(err error) { m.log.Warn("module registry not restored", "error", err) },
		}.run(ctx, m.stateIsThere)
	})
	serve(first)
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
