package config

import (
	"slices"
	"strings"

	"github.com/core-tools/hsu-master/internal/nearest"
)

// Capabilities are the capabilities of Linux that a process can have.
type Capabilities struct {
	Keep bool // those of the master; List is empty
	List []string
}

// knownCapabilities are those of Linux 5.9 and later, without CAP_.
var knownCapabilities = []string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
	"LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
	"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
	"SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
	"MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND",
	"AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
}

// capabilities is the word keep, or a list of names.
type capabilities struct{ at *Capabilities }

func (capabilities) form() form {
	return form{
		name: "keep, or a list of names such as NET_BIND_SERVICE", json: "array",
		items: &form{name: "a capability", json: "string"}, words: []string{"keep"},
	}
}

func (c capabilities) read(r *reader, n *node) {
	switch {
	case n.kind == textNode && n.text == "keep":
		*c.at = Capabilities{Keep: true}
		return
	case n.kind != listNode:
		r.fault(n, "must be keep, or a list such as [NET_BIND_SERVICE]")
		return
	}
	list := make([]string, 0, len(n.items))
	for _, item := range n.items {
		given, ok := r.text(item, plain, "a capability")
		name := strings.TrimPrefix(strings.ToUpper(given), "CAP_")
		switch {
		case !ok:
		case !slices.Contains(knownCapabilities, name):
			r.fault(item, "%s is no capability%s", r.quote(item), nearest.DidYouMean(name, knownCapabilities))
		default:
			list = append(list, name)
		}
	}
	*c.at = Capabilities{List: list}
}
