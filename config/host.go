package config

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/core-tools/hsu-master/internal/safefile"
)

// Host has the variables, files and users that a file may refer to. Tests use one that does not exist.
type Host struct {
	// Root means that the master runs as root. Only then may it run units as other users.
	Root bool
	// Variable returns an environment variable of the master.
	Variable func(name string) (value string, found bool)
	// ReadFile returns the content of a file.
	ReadFile func(path string) ([]byte, error)
	// Glob returns the files that match a pattern, sorted.
	Glob func(pattern string) ([]string, error)
	// CheckTrusted returns an error if another user than root can change a file that a root master uses.
	CheckTrusted func(path string) error
	// User and Group return an error if there is no user or group with the name.
	User, Group func(name string) error
}

// ThisHost returns the host that the process runs on.
func ThisHost() Host {
	return Host{
		Root:         os.Geteuid() == 0,
		Variable:     os.LookupEnv,
		ReadFile:     func(path string) ([]byte, error) { return safefile.ReadInputUpTo(path, maxSize) },
		Glob:         glob,
		CheckTrusted: safefile.CheckProgram,
		User: func(name string) error {
			_, err := user.Lookup(name)
			return err
		},
		Group: func(name string) error {
			_, err := user.LookupGroup(name)
			return err
		},
	}
}

// glob is [filepath.Glob], but fails if the folder of the files exists and cannot be read: a reload would take units in
// it for removed ones.
func glob(pattern string) ([]string, error) {
	found, err := filepath.Glob(pattern)
	folder := filepath.Dir(pattern)
	if err != nil || len(found) > 0 || strings.ContainsAny(folder, "*?[") {
		return found, err
	}
	if _, err := os.ReadDir(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return nil, nil
}
