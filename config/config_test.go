package config

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// fakeHost is a host that has only the given files. Names are below /etc/hsu.
func fakeHost(files map[string]string) Host {
	variables := map[string]string{
		"HOME": "/home/me", "EMPTY": "", "SECRET": "hunter2", "PORT": "many", "HIDDEN": "987654",
	}
	known := func(name string) error {
		if slices.Contains([]string{"search", "root"}, name) {
			return nil
		}
		return errors.New("unknown")
	}
	return Host{
		Root: true,
		Variable: func(name string) (string, bool) {
			value, found := variables[name]
			return value, found
		},
		ReadFile: func(name string) ([]byte, error) {
			if content, found := files[name]; found {
				return []byte(content), nil
			}
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		},
		Glob: func(pattern string) ([]string, error) {
			var found []string
			for name := range files {
				match, err := filepath.Match(pattern, name)
				if err != nil {
					return nil, err
				}
				if match {
					found = append(found, name)
				}
			}
			slices.Sort(found)
			return found, nil
		},
		CheckTrusted: func(name string) error {
			if strings.Contains(name, "untrusted") {
				return errors.New(name + " can be written by users other than root")
			}
			return nil
		},
		User: known, Group: known,
	}
}

const mainFile = "/etc/hsu/hsu.yaml"

// load loads a file of the given text.
func load(text string) (*File, error) {
	return Load(mainFile, fakeHost(map[string]string{mainFile: text}))
}
