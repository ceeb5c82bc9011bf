package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"
)

const workerPathFlag = "worker-path"

// workerPath returns the path of the worker's executable, or "" if there are no workers. A name without a slash
// is looked up in PATH, as a shell does, and not in the current folder.
func workerPath(c *cli.Context) (string, error) {
	name := c.String(workerPathFlag)
	switch {
	case name == "" && c.IsSet(workerPathFlag):
		return "", errors.New("--worker-path is empty: " +
			"name an executable, or omit the flag to run without workers")
	case name == "", strings.ContainsRune(name, filepath.Separator):
		return name, nil
	}
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	if _, here := os.Stat(name); here == nil {
		return "", fmt.Errorf("--worker-path %s is not in PATH: name the one in this directory as .%c%[1]s",
			name, filepath.Separator)
	}
	return "", fmt.Errorf("--worker-path %s is not in PATH: name the executable by its path", name)
}
