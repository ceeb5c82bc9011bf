package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/master"
	"github.com/core-tools/hsu-master/store"
)

const (
	stateDirFlag   = "state-dir"
	runtimeDirFlag = "runtime-dir"
)

func folderFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{
			Name: stateDirFlag, EnvVars: []string{"HSU_MASTER_STATE_DIR"}, Category: "Directories:",
			Usage: "`DIR` directory of the master's state (default: $STATE_DIRECTORY, " +
				"/var/lib/hsu-master for root, or ~/.local/state/hsu-master)",
		},
		&cli.StringFlag{
			Name: runtimeDirFlag, EnvVars: []string{"HSU_MASTER_RUNTIME_DIR"}, Category: "Directories:",
			Usage: "`DIR` directory of the admin socket and the leases (default: $RUNTIME_DIRECTORY, " +
				"run in a given --state-dir, /run/hsu-master for root, or $XDG_RUNTIME_DIR/hsu-master)",
		},
	}
}

// folders are the directories of a master. The man page documents the order of their defaults.
type folders struct {
	state, runtime string
	// runtimeGiven is set if the runtime folder was given by flag or variable. Clients then look nowhere else.
	runtimeGiven bool
	// given is set if a folder was given by flag or variable. Clients then do not fall back to a master at the
	// default address.
	given bool
}

// stateIs reports whether the state folder has the given id, which is made of its device and inode.
func (f folders) stateIs(id string) bool {
	here, err := store.DirID(f.state)
	return err != nil || here.String() == id
}

func foldersOf(c *cli.Context) (folders, error) {
	for _, name := range []string{stateDirFlag, runtimeDirFlag} {
		if c.IsSet(name) && c.String(name) == "" {
			return folders{}, exit.Usagef("--%s is empty: name a directory, or omit the flag", name)
		}
	}
	return chooseFolders(c.String(stateDirFlag), c.String(runtimeDirFlag), os.Geteuid(), os.Getenv)
}

func chooseFolders(state, runtime string, uid int, getenv func(string) string) (folders, error) {
	f := folders{state: state, runtime: runtime, runtimeGiven: runtime != ""}
	// systemd separates several folders with colons; the first one is the master's.
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
			return folders{}, exit.Usagef("no state directory: $HOME is not set: name one with --%s", stateDirFlag)
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
		return folders{}, fmt.Errorf("find the state directory: %w", err)
	}
	if f.runtime, err = filepath.Abs(f.runtime); err != nil {
		return folders{}, fmt.Errorf("find the runtime directory: %w", err)
	}
	return f, nil
}

// liveSocket returns the path at which a client finds the admin socket. This is the path that the running master
// announced in its state folder, because its runtime folder may have been set by a flag.
func (f folders) liveSocket() string {
	if !f.runtimeGiven {
		if path, ok := master.AnnouncedSocket(f.state); ok {
			return path
		}
	}
	return master.AdminSocket(f.runtime)
}
