package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/deploy"
)

// unitFile is one of the two units, with the name by which systemd knows it.
type unitFile struct{ name, text string }

// installation is the wish of a command line of "systemd install".
type installation struct {
	options deploy.Options
	cfg     config
	units   []unitFile
	needs   needs
}

// installationOf returns the installation for the run flags of the command line.
func installationOf(c *cli.Context) (installation, error) {
	command, commandErr := commandLine(c) // before configOf sets flags to the values of the file of --config
	options := deploy.Options{Name: c.String(serviceNameFlag), User: c.String(serviceUserFlag)}
	if err := deploy.CheckName(options.Name); err != nil {
		return installation{}, exit.Usagef("--%s %w", serviceNameFlag, err)
	}
	// An executable that this user may not execute may be right for another user.
	cfg, err := configOf(c, func(string) bool { return options.User != rootName })
	if err != nil {
		return installation{}, err
	}
	if commandErr != nil {
		return installation{}, commandErr
	}
	if !c.IsSet(stateDirFlag) {
		cfg.folders.state = filepath.Join(stateRoot, options.Name)
	}
	if !c.IsSet(runtimeDirFlag) {
		cfg.folders.runtime = filepath.Join("/run", options.Name)
	}
	options.ExecStart, options.ExecReload = command, reloadLine(command)
	options.ListenStream, options.StopGrace = cfg.Address, cfg.Master.StopGrace
	for flag, dir := range map[string]string{stateDirFlag: cfg.folders.state, runtimeDirFlag: cfg.folders.runtime} {
		if c.IsSet(flag) {
			options.ReadWritePaths = append(options.ReadWritePaths, dir)
		}
	}
	writable, err := writableFolders(c)
	if err != nil {
		return installation{}, err
	}
	i := installation{options: options, cfg: cfg, needs: needsOf(cfg, writable, options.User)}
	slices.Sort(i.options.ReadWritePaths)
	i.options.Writable = i.needs.writable
	i.options.ReadPaths = append(resolved(c), i.needs.read...)
	i.options.Rights = i.needs.rights
	return i, i.render()
}

// render sets the units.
func (i *installation) render() error {
	service, err := deploy.Service(i.options)
	if err != nil {
		return exit.Usagef("write the service unit: %w", err)
	}
	socket, err := deploy.Socket(i.options)
	if err != nil {
		return exit.Usagef("write the socket unit: %w", err)
	}
	i.units = []unitFile{{i.options.ServiceName(), service}, {i.options.SocketName(), socket}}
	return nil
}

// writableFolders returns the folders of --writable.
func writableFolders(c *cli.Context) ([]string, error) {
	var dirs []string
	for _, dir := range c.StringSlice(writableFlag) {
		info, err := os.Stat(dir)
		switch {
		case err != nil:
			return nil, exit.Usagef("--%s: %w: create it first", writableFlag, err)
		case !info.IsDir():
			return nil, exit.Usagef("--%s %s: is not a directory", writableFlag, render.Printable(dir))
		}
		if dir, err = filepath.Abs(dir); err != nil {
			return nil, fmt.Errorf("--%s: %w", writableFlag, err)
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

// client returns the flags by which commands find the master of the installation, with a blank after each.
func (i installation) client() string {
	if i.options.Name == deploy.DefaultName && i.cfg.folders.state == filepath.Join(stateRoot, deploy.DefaultName) {
		return ""
	}
	return "--" + stateDirFlag + " " + i.cfg.folders.state + " "
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
