package install

import "os/exec"

// runAs does nothing: there is no systemd on Windows.
func runAs(*exec.Cmd, Account) {}
