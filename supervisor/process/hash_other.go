//go:build !linux

package process

import (
	"errors"
	"fmt"
	"os"
)

func openRegular(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	return os.Open(path)
}

// versionOf says that a file's version cannot be told, so that it is read each time.
func versionOf(*os.File) (fileVersion, error) { return fileVersion{}, errors.ErrUnsupported }
