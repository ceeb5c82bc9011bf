//go:build !unix

package process

import (
	"errors"
	"os"
	"os/exec"
)

// Without process groups only the process itself can be killed: its descendants live on.

func ownGroup(*exec.Cmd) {}

func terminateGroup(leader *os.Process) error { return killGroup(leader) } // SIGTERM does not exist here

func killGroup(leader *os.Process) error {
	if err := leader.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

func groupAlive(int) bool { return false }
