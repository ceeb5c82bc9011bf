package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/install"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/deploy"
)

const unitDirFlag = "unit-dir"

func systemdCommand() *cli.Command {
	unitDir := func() cli.Flag {
		return &cli.StringFlag{
			Name: unitDirFlag, Value: install.SystemUnits, Usage: "`DIR` directory of the unit files",
		}
	}
	unit := leaf("unit", "print the service and socket units for the given flags of run", printUnits,
		slices.Concat(serviceFlagsOfUnit(), runFlags())...)
	install := leaf("install", "install the service and socket units for the given flags of run", installUnits,
		slices.Concat([]cli.Flag{unitDir(), &cli.BoolFlag{Name: "enable", Usage: "also enable and start the units"}},
			serviceFlagsOfUnit(), runFlags())...)
	install.Description = `With --config the file is checked as the service will read it: as its user, and
with the variables of /etc/default/NAME. If it has faults nothing is installed.
The address, the stop timeout, the rights and the writable directories of the
service follow the file: install again after a change of these.`
	return group("systemd", "manage the master as a systemd service", unit, install,
		leaf("uninstall", "stop, disable and remove the units; keep the state",
			uninstallUnits, unitDir(), serviceName()))
}

func serviceName() cli.Flag {
	return &cli.StringFlag{
		Name: install.NameFlag, Value: deploy.DefaultName,
		Usage: "`NAME` name of the units and directories; each master of a host has its own",
	}
}

// serviceFlagsOfUnit returns the flags of the units that are not flags of run.
func serviceFlagsOfUnit() []cli.Flag {
	return []cli.Flag{
		serviceName(),
		&cli.StringFlag{
			Name: install.UserFlag, Value: "root",
			Usage: "`USER` user that the master and its workers run as, and that owns the directories",
		},
		&cli.StringSliceFlag{
			Name: install.WritableFlag,
			Usage: "`DIR` directory that workers can write to, besides those of the service and each working_dir " +
				"that is not that of the file; repeatable",
		},
	}
}

func printUnits(c *cli.Context) error {
	i, err := installationOf(c)
	if err != nil {
		return err
	}
	i.Print(c.App.Writer)
	return nil
}

func installUnits(c *cli.Context) error {
	owner, err := install.LookUp(c.String(install.UserFlag))
	if err != nil {
		return err
	}
	i, err := installationOf(c)
	if err != nil {
		return err
	}
	return i.Install(c.Context, c.App.Writer, owner, c.String(unitDirFlag), c.Bool("enable"))
}

func uninstallUnits(c *cli.Context) error {
	return install.Uninstall(c.Context, c.App.Writer, c.String(unitDirFlag), c.String(install.NameFlag))
}

// installationOf returns the installation for the run flags of the command line.
func installationOf(c *cli.Context) (*install.Installation, error) {
	command, commandErr := commandLine(c) // before configOf sets flags to the values of the file of --config
	options := deploy.Options{Name: c.String(install.NameFlag), User: c.String(install.UserFlag)}
	if err := deploy.CheckName(options.Name); err != nil {
		return nil, exit.Usagef("--%s %w", install.NameFlag, err)
	}
	// An executable that this user may not execute may be right for another user.
	cfg, err := configOf(c, func(string) bool { return options.User != install.RootUser })
	if err != nil {
		return nil, err
	}
	if commandErr != nil {
		return nil, commandErr
	}
	if !c.IsSet(stateDirFlag) {
		cfg.folders.state = filepath.Join(install.StateRoot, options.Name)
	}
	if !c.IsSet(runtimeDirFlag) {
		cfg.folders.runtime = filepath.Join("/run", options.Name)
	}
	options.ExecStart, options.ExecReload = command, reloadLine(command)
	options.ListenStream, options.StopGrace = cfg.Address, cfg.Master.StopGrace
	given := map[string]string{}
	for flag, dir := range map[string]string{stateDirFlag: cfg.folders.state, runtimeDirFlag: cfg.folders.runtime} {
		if c.IsSet(flag) {
			options.ReadWritePaths, given[flag] = append(options.ReadWritePaths, dir), dir
		}
	}
	writable, err := writableFolders(c)
	if err != nil {
		return nil, err
	}
	slices.Sort(options.ReadWritePaths)
	options.ReadPaths = resolved(c)
	i := &install.Installation{
		Options: options, File: cfg.file, Specs: cfg.Master.Units, UnitFault: cfg.UnitFault,
		Folders: []string{cfg.folders.state, cfg.folders.runtime}, Given: given,
	}
	if options.Name != deploy.DefaultName || cfg.folders.state != filepath.Join(install.StateRoot, deploy.DefaultName) {
		i.Client = "--" + stateDirFlag + " " + cfg.folders.state + " "
	}
	return i, i.Prepare(writable)
}

// writableFolders returns the folders of --writable.
func writableFolders(c *cli.Context) ([]string, error) {
	var dirs []string
	for _, dir := range c.StringSlice(install.WritableFlag) {
		info, err := os.Stat(dir)
		switch {
		case err != nil:
			return nil, exit.Usagef("--%s: %w: create it first", install.WritableFlag, err)
		case !info.IsDir():
			return nil, exit.Usagef("--%s %s: is not a directory", install.WritableFlag, render.Printable(dir))
		}
		if dir, err = filepath.Abs(dir); err != nil {
			return nil, fmt.Errorf("--%s: %w", install.WritableFlag, err)
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

// commandLine returns the command line of the service: "run" with the given flags, and with absolute paths,
// because a service does not run in a particular folder.
func commandLine(c *cli.Context) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	command := []string{self, "run"}
	for _, flag := range append(runFlags(), folderFlags()...) {
		name := flag.Names()[0]
		if !c.IsSet(name) {
			continue
		}
		values := []string{fmt.Sprint(c.Value(name))}
		if name == workerPathFlag {
			if values[0], err = workerPath(c); err != nil {
				return nil, exit.Usage(err)
			}
		}
		switch {
		case slices.Contains([]string{"worker-arg", "worker-service", "service-option"}, name):
			values = c.StringSlice(name)
		case slices.Contains(pathFlags, name):
			if values[0], err = filepath.Abs(values[0]); err != nil {
				return nil, fmt.Errorf("--%s: %w", name, err)
			}
		}
		for _, value := range values {
			command = append(command, "--"+name+"="+value)
		}
	}
	return command, nil
}

// reloadLine returns the command line of a reload of the service with this command line.
func reloadLine(command []string) []string {
	reload := []string{command[0], "reload"}
	for _, word := range command {
		if strings.HasPrefix(word, "--"+stateDirFlag+"=") || strings.HasPrefix(word, "--"+runtimeDirFlag+"=") {
			reload = append(reload, word)
		}
	}
	return reload
}

// pathFlags are the flags that name files and folders. A service needs their absolute paths.
var pathFlags = append([]string{configFlag, workerPathFlag, stateDirFlag, runtimeDirFlag}, secureFileFlags...)

// resolved returns the paths of these files and folders with all symbolic links resolved.
func resolved(c *cli.Context) []string {
	var paths []string
	for _, flag := range pathFlags {
		path := c.String(flag)
		if flag == workerPathFlag {
			path, _ = workerPath(c) // commandLine has returned the error
		}
		if path == "" {
			continue
		}
		path, err := filepath.Abs(path)
		if err != nil {
			continue
		}
		if path, err = filepath.EvalSymlinks(path); err == nil {
			paths = append(paths, path)
		}
	}
	return paths
}
