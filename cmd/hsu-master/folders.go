package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/process"
)

const (
	stateDirFlag   = "state-dir"
	runtimeDirFlag = "runtime-dir"
	adminSocket    = "admin.sock"
	adminPathFile  = "admin.path"
)

func folderFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name: stateDirFlag, EnvVars: []string{"HSU_MASTER_STATE_DIR"}, Category: "Folders:",
			Usage: "where the master keeps its `DIR` of state (default: $STATE_DIRECTORY, /var/lib/hsu-master for root, else ~/.local/state/hsu-master)",
		},
		&cli.StringFlag{
			Name: runtimeDirFlag, EnvVars: []string{"HSU_MASTER_RUNTIME_DIR"}, Category: "Folders:",
			Usage: "where the admin socket and the leases are `DIR` (default: $RUNTIME_DIRECTORY, \"run\" in a state dir that was given, /run/hsu-master for root, else $XDG_RUNTIME_DIR/hsu-master)",
		},
	}
}

// folders are where a master keeps what it needs; DESIGN's and the man page's
// order of defaults.
type folders struct {
	state, runtime string
	// runtimeGiven: by flag, so clients look nowhere else.
	runtimeGiven bool
	// given: a folder was named by flag or variable, so another master's will not do.
	given bool
}

// stateIs tells whether the state folder is the one of that device and inode.
func (f folders) stateIs(id string) bool {
	here, err := store.DirID(f.state)
	return err != nil || process.FileID(here).String() == id
}

func foldersOf(c *cli.Context) (folders, error) {
	for _, name := range []string{stateDirFlag, runtimeDirFlag} {
		if c.IsSet(name) && c.String(name) == "" {
			return folders{}, usagef("--%s is empty: name a folder, or leave the flag out", name)
		}
	}
	return chooseFolders(c.String(stateDirFlag), c.String(runtimeDirFlag), os.Geteuid(), os.Getenv)
}

func chooseFolders(state, runtime string, uid int, getenv func(string) string) (folders, error) {
	f := folders{state: state, runtime: runtime, runtimeGiven: runtime != ""}
	// systemd lists several folders with colons between; the first is ours.
	first := func(name string) string {
		value, _, _ := strings.Cut(getenv(name), ":")
		return value
	}
	if f.state == "" {
		f.state = first("STATE_DIRECTORY")
	}
	stateGiven := f.state != ""
	f.given = stateGiven || f.runtimeGiven
	if f.state == "" {
		switch xdg, home := getenv("XDG_STATE_HOME"), getenv("HOME"); {
		case uid == 0:
			f.state = "/var/lib/hsu-master"
		case xdg != "":
			f.state = filepath.Join(xdg, "hsu-master")
		case home != "":
			f.state = filepath.Join(home, ".local", "state", "hsu-master")
		default:
			return folders{}, usagef("no state folder: $HOME is not set: give one with --%s", stateDirFlag)
		}
	}
	if f.runtime == "" {
		f.runtime = first("RUNTIME_DIRECTORY")
	}
	if f.runtime == "" {
		switch xdg := getenv("XDG_RUNTIME_DIR"); {
		case stateGiven:
			f.runtime = filepath.Join(f.state, "run")
		case uid == 0:
			f.runtime = "/run/hsu-master"
		case xdg != "":
			f.runtime = filepath.Join(xdg, "hsu-master")
		default:
			f.runtime = filepath.Join(f.state, "run")
		}
	}
	var err error
	if f.state, err = filepath.Abs(f.state); err != nil {
		return folders{}, fmt.Errorf("find the state folder: %w", err)
	}
	if f.runtime, err = filepath.Abs(f.runtime); err != nil {
		return folders{}, fmt.Errorf("find the runtime folder: %w", err)
	}
	return f, nil
}

// socket is where the master of these folders listens for administrators.
func (f folders) socket() string { return filepath.Join(f.runtime, adminSocket) }

// liveSocket is where a client looks: the path that the running master has left
// in its state folder, since its runtime folder may have been given by a flag.
func (f folders) liveSocket() string {
	if !f.runtimeGiven {
		if file, err := os.Open(filepath.Join(f.state, adminPathFile)); err == nil {
			text, err := io.ReadAll(io.LimitReader(file, maxAdminPath+1))
			err = errors.Join(err, file.Close())
			if path, ok := announced(text); ok && err == nil {
				return path
			}
		}
	}
	return f.socket()
}

// maxAdminPath is PATH_MAX of Linux, and more than a socket's path can have.
const maxAdminPath = 4096

// announced is the path that announce has left; false where a power cut has left
// less, or somebody something else.
func announced(text []byte) (path string, ok bool) {
	path, whole := strings.CutSuffix(string(text), "\n")
	return path, whole && len(text) <= maxAdminPath && filepath.IsAbs(path) && !strings.Contains(path, "\x00")
}

// announce leaves the socket's path for clients. A crash leaves it too, and then
// there is nothing to write, which a full disk would not allow.
func (f folders) announce() error {
	path, text := filepath.Join(f.state, adminPathFile), f.socket()+"\n"
	if old, err := os.ReadFile(path); err == nil && string(old) == text {
		return nil
	}
	return replaceFile(crashpoint.AdminPath, path, text, 0o600)
}

// takeBack removes what announce has left.
func (f folders) takeBack() error {
	err := crashpoint.Do(crashpoint.AdminPathGone, func() error { return os.Remove(filepath.Join(f.state, adminPathFile)) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil // moved or deleted under way
	}
	return err
}

// replaceFile leaves the old file or the new one, never half of one.
func replaceFile(file crashpoint.Point, path, text string, mode fs.FileMode) error {
	tmp := path + ".new"
	if err := crashpoint.Do(file.Write(), func() error { return os.WriteFile(tmp, []byte(text), mode) }); err != nil {
		_ = os.Remove(tmp)
		return err
	}
	if err := crashpoint.Do(file.Rename(), func() error { return os.Rename(tmp, path) }); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return nil
}
