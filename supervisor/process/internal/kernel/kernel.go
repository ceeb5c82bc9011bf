// Package kernel names the features that the kernel lacks, in tests.
package kernel

import "sync/atomic"

// Withheld makes tests see an older kernel than the one that they run on.
var Withheld struct {
	Pidfs       atomic.Bool // Linux 6.9: an inode per process
	GroupSignal atomic.Bool // Linux 6.9: PIDFD_SIGNAL_PROCESS_GROUP
	ExitInfo    atomic.Bool // Linux 6.15: PIDFD_INFO_EXIT
	FolderSize  atomic.Bool // Linux 6.2: the number of descriptors as the size of their folder
	PortQuery   atomic.Bool // a question about the listeners of one port, so that all callers share one about all ports
	SockDiag    atomic.Bool // a kernel or sandbox without NETLINK_SOCK_DIAG
	TCPDiag     atomic.Bool // a kernel with sock_diag but without its TCP module
	CgroupKill  atomic.Bool // Linux 5.14: cgroup.kill
	CgroupClone atomic.Bool // Linux 5.7: CLONE_INTO_CGROUP
	PeerPidfd   atomic.Bool // Linux 6.5: SO_PEERPIDFD
}
