package process

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// OutputLost reports whether the process writes its output to a file that was at path, and that has been deleted or
// moved within its folder since.
func OutputLost(pid int, path string) bool {
	return lost(pid, 1, path) || lost(pid, 2, path)
}

// WritesTo reports whether the standard output or error of the process is the file at path.
func WritesTo(pid int, path string) bool {
	file, err := os.Stat(path)
	if err != nil {
		return false
	}
	for fd := 1; fd <= 2; fd++ {
		if at, err := os.Stat(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); err == nil && os.SameFile(file, at) {
			return true
		}
	}
	return false
}

// lost is OutputLost for one descriptor. Descriptors that the process has led elsewhere are its own business.
func lost(pid, fd int, path string) bool {
	if folder, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(folder, filepath.Base(path))
	}
	name := fmt.Sprintf("/proc/%d/fd/%d", pid, fd)
	at, err := os.Readlink(name)
	if err != nil {
		return false
	}
	if file, found := strings.CutSuffix(at, " (deleted)"); found {
		return file == path
	}
	if at == path || filepath.Dir(at) != filepath.Dir(path) {
		return false
	}
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular() && strings.HasPrefix(filepath.Base(at), filepath.Base(path))
}
