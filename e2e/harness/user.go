//go:build e2e && linux

package harness

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// Nobody is the UID of that user.
const Nobody = 65534

// AsNobody makes the host's masters run as a user without privileges.
func (h *Host) AsNobody() {
	h.T.Helper()
	if os.Geteuid() != 0 {
		SkipOutsideCI(h.T, "starts masters as another user, which only root may")
	}
	err := os.Mkdir(h.State, 0o700)
	for _, dir := range []string{Programs.Dir, h.Dir} {
		err = errors.Join(err, os.Chmod(dir, 0o711))
	}
	for _, dir := range []string{h.State, h.Record} {
		err = errors.Join(err, os.Chown(dir, Nobody, Nobody))
	}
	if err != nil {
		h.T.Fatal(err)
	}
	h.Begin = func(cmd *exec.Cmd) error {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: Nobody, Gid: Nobody}
		return cmd.Start()
	}
}
