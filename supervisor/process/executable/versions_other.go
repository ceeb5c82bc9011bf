//go:build !linux

package executable

import (
	"errors"
	"os"
)

// versionOf returns [errors.ErrUnsupported], so that the file is read each time.
func versionOf(*os.File) (fileVersion, error) { return fileVersion{}, errors.ErrUnsupported }

func versionAt(string) (fileVersion, error) { return fileVersion{}, errors.ErrUnsupported }
