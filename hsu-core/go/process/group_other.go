//go:build !unix

package process

import (
	"errors"
	"os"
	"os/exec"
)

// Without process groups only the process itself is within reach: what it started lives on.

func ownGroup(*exec.Cmd) {}

func terminateGroup(leader *os.Process) error { return killGroup(leader) } // no way to ask one

func killGroup(leader *os.Process) error {
	if err := leader.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

func groupAlive(int) bool { return false }
