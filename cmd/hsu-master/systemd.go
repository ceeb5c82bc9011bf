package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/util"
	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/deploy"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/safefile"
)

func systemdCommand() *cli.Command {
	unitDir := func() cli.Flag {
		return &cli.StringFlag{
			Name: "unit-dir", Value: "/etc/systemd/system",
			Usage: "`DIR` directory of the unit files",
		}
	}
	return group("systemd", "manage the master as a systemd service",
		leaf("unit", "print the service and socket units for the given flags of run", printUnits,
			append([]cli.Flag{serviceUser()}, runFlags()...)...),
		leaf("install", "install the service and socket units for the given flags of run", installUnits,
			append([]cli.Flag{
				unitDir(), serviceUser(), &cli.BoolFlag{Name: "enable", Usage: "also enable and start the units"},
			}, runFlags()...)...),
		leaf("uninstall", "stop, disable and remove the units; keep the state",
			uninstallUnits, unitDir()))
}

const serviceUserFlag = "user"

func serviceUser() cli.Flag {
	return &cli.StringFlag{
		Name: serviceUserFlag, Value: "root",
		Usage: "`NAME` user that the master and its workers run as, and that owns the directories",
	}
}

// unitFile is one of the two units, with the name by which systemd knows it.
type unitFile struct{ name, text string }

// unitsOf renders both units for the run flags of the command line.
func unitsOf(c *cli.Context) ([]unitFile, config, error) {
	command, commandErr := commandLine(c) // before configOf sets flags to the values of the file of --config
	// An executable that this user may not execute may be right for another user.
	cfg, err := configOf(c, func(string) bool { return c.String(serviceUserFlag) != "root" })
	if err != nil {
		return nil, config{}, err
	}
	if commandErr != nil {
		return nil, config{}, commandErr
	}
	options := deploy.Options{
		ExecStart: command, ExecReload: reloadLine(command), ListenStream: cfg.address,
		StopGrace: cfg.master.StopGrace, User: c.String(serviceUserFlag),
	}
	for flag, dir := range map[string]string{stateDirFlag: cfg.folders.state, runtimeDirFlag: cfg.folders.runtime} {
		if c.IsSet(flag) {
			options.ReadWritePaths = append(options.ReadWritePaths, dir)
		}
	}
	slices.Sort(options.ReadWritePaths)
	options.ReadPaths = resolved(c)
	service, err := deploy.Service(options)
	if err != nil {
		return nil, config{}, usagef("write the service unit: %w", err)
	}
	socket, err := deploy.Socket(options)
	if err != nil {
		return nil, config{}, usagef("write the socket unit: %w", err)
	}
	return []unitFile{{deploy.ServiceName, service}, {deploy.SocketName, socket}}, cfg, nil
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
				return nil, usageError{err}
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

func printUnits(c *cli.Context) error {
	units, _, err := unitsOf(c)
	if err != nil {
		return err
	}
	for i, u := range units {
		if i > 0 {
			fmt.Fprintln(c.App.Writer)
		}
		fmt.Fprintf(c.App.Writer, "# %s\n%s", u.name, u.text)
	}
	return nil
}

func installUnits(c *cli.Context) error {
	units, cfg, err := unitsOf(c)
	if err != nil {
		return err
	}
	owner, err := lookUp(c.String(serviceUserFlag))
	if err != nil {
		return err
	}
	dir := c.String("unit-dir")
	installed, err := os.ReadFile(filepath.Join(dir, deploy.ServiceName))
	if err == nil && util.IsRunningSystemd() {
		if err := checkRunning("/proc", owner); err != nil {
			return err
		}
	}
	for flag, dir := range map[string]string{stateDirFlag: cfg.folders.state, runtimeDirFlag: cfg.folders.runtime} {
		// systemd does not start a service if a folder of ReadWritePaths= is missing.
		if c.IsSet(flag) {
			if err := owner.makeFolder(dir); err != nil {
				return fmt.Errorf("create --%s: %w", flag, err)
			}
		}
	}
	if cfg.unitFault != nil {
		fmt.Fprintf(c.App.Writer, "check that user %s may execute it, and nobody else replace it: %s\n",
			owner.name, printable(cfg.unitFault.Error()))
	}
	for _, u := range units {
		if err := safefile.Replace(crashpoint.UnitFile, filepath.Join(dir, u.name), u.text, 0o644); err != nil {
			return hint(fmt.Errorf("write the unit: %w", err), "run it as root, and name a --unit-dir that exists")
		}
		fmt.Fprintf(c.App.Writer, "wrote %s\n", filepath.Join(dir, u.name))
	}
	if util.IsRunningSystemd() {
		if err := systemctl(c.Context, "daemon-reload"); err != nil {
			return err
		}
	}
	if len(installed) > 0 && string(installed) != units[0].text && util.IsRunningSystemd() &&
		systemctl(c.Context, "is-active", "--quiet", deploy.ServiceName) == nil {
		fmt.Fprintf(c.App.Writer, "the running service keeps its old settings and rights until systemctl restart %s\n",
			deploy.ServiceName)
	}
	if !c.Bool("enable") {
		fmt.Fprintf(c.App.Writer, "next: systemctl enable --now %s %s\n", deploy.SocketName, deploy.ServiceName)
		return nil
	}
	if err := systemctl(c.Context, "enable", "--now", deploy.SocketName, deploy.ServiceName); err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "enabled and started; next: hsu-master status\n")
	return nil
}

// account is the user that the service runs as.
type account struct {
	name     string
	uid, gid int
}

func lookUp(name string) (account, error) {
	found, err := user.Lookup(name)
	if err != nil {
		return account{}, hint(usagef("--%s %q: %w", serviceUserFlag, name, err),
			"create one: useradd --system --no-create-home NAME")
	}
	uid, err := strconv.Atoi(found.Uid)
	gid, gidErr := strconv.Atoi(found.Gid)
	if err := errors.Join(err, gidErr); err != nil {
		return account{}, fmt.Errorf("user %s: %w", name, err)
	}
	return account{name: name, uid: uid, gid: gid}, nil
}

// makeFolder creates a folder owned by the user. It leaves an existing folder unchanged.
func (a account) makeFolder(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	switch err := os.Mkdir(dir, 0o700); {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil, os.Geteuid() != 0: // only root can change the owner
		return err
	}
	return os.Lchown(dir, a.uid, a.gid)
}

func uninstallUnits(c *cli.Context) error {
	dir := c.String("unit-dir")
	// The socket is stopped first: it would start the service again.
	names := []string{deploy.SocketName, deploy.ServiceName}
	installed := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		_, err := os.Lstat(filepath.Join(dir, name))
		return errors.Is(err, fs.ErrNotExist)
	})
	if len(installed) == 0 {
		fmt.Fprintf(c.App.Writer, "nothing to remove: there is no %s in %s\n", deploy.ServiceName, dir)
		return nil
	}
	if util.IsRunningSystemd() {
		if err := systemctl(c.Context, append([]string{"disable", "--now"}, installed...)...); err != nil {
			return err
		}
	}
	for _, name := range installed {
		path := filepath.Join(dir, name)
		if err := os.Remove(path); err != nil {
			return hint(fmt.Errorf("remove the unit: %w", err), "run it as root")
		}
		fmt.Fprintf(c.App.Writer, "removed %s\n", path)
	}
	if util.IsRunningSystemd() {
		return systemctl(c.Context, "daemon-reload")
	}
	return nil
}

func systemctl(ctx context.Context, args ...string) error {
	output, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		return hint(fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(output))),
			"see journalctl -u %s", deploy.ServiceName)
	}
	return nil
}
