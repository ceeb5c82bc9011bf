//go:build unix

package install

import (
	"os/exec"
	"syscall"
)

// runAs makes a command run as the account.
func runAs(cmd *exec.Cmd, a Account) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{
		Uid: uint32(a.uid), Gid: uint32(a.gid), Groups: a.groups, //nolint:gosec // ids have 32 bits
	}}
}
