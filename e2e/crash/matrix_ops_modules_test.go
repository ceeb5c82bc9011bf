//go:build e2e && crash && linux

package crash

import "golang.org/x/sys/unix"

// Operations on workers that choose their ports and publish them at the module registry.

const ownPorts = "    port: announced\n    services: [proto.MyBusinessService, proto.EchoService]\n"

func operationsOfModules() []*operation {
	return []*operation{
		{
			name: "announced worker crashes", file: true, registry: true, further: ownPorts, habit: "module", life: 10,
			begin: ends(unix.SIGKILL), rest: restarted,
		},
		{
			name: "recovery of announced workers", file: true, registry: true, further: ownPorts, habit: "module",
			life: 10, launched: true, prepare: allDead,
		},
	}
}
