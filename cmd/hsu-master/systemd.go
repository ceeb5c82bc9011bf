package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/util"
	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/deploy"
	"github.com/core-tools/hsu-master/internal/crashpoint"
)

func systemdCommand() *cli.Command {
	unitDir := func() cli.Flag {
		return &cli.StringFlag{Name: "unit-dir", Value: "/etc/systemd/system", Usage: "`DIR` of the unit files"}
	}
	return group("systemd", "run the master as a service of systemd",
		leaf("unit", "print the service and the socket unit for the run flags given", printUnits, runFlags()...),
		leaf("install", "write the service and the socket unit for the run flags given", installUnits, append(runFlags(), unitDir(),
			&cli.BoolFlag{Name: "enable", Usage: "also enable and start them"})...),
		leaf("uninstall", "stop, disable and remove the service and the socket unit; the state stays", uninstallUnits, unitDir()))
}

// unitFile is one of the two units, by the name that systemd knows it by.
type unitFile struct{ name, text string }

// unitsOf renders both units for the flags of run that the command line gives.
func unitsOf(c *cli.Context) ([]unitFile, config, error) {
	cfg, err := configOf(c, func(string) bool { return false })
	if err != nil {
		return nil, config{}, err
	}
	command, err := commandLine(c)
	if err != nil {
		return nil, config{}, err
	}
	options := deploy.Options{ExecStart: command, ListenStream: cfg.address, StopGrace: cfg.stopGrace}
	for flag, dir := range map[string]string{stateDirFlag: cfg.folders.state, runtimeDirFlag: cfg.folders.runtime} {
		if c.IsSet(flag) {
			options.ReadWritePaths = append(options.ReadWritePaths, dir)
		}
	}
	slices.Sort(options.ReadWritePaths)
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

// commandLine is "run" with the flags that were given, as a service runs it: in
// no particular folder.
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

// pathFlags name files and folders, which a service needs by their whole paths.
var pathFlags = append([]string{"worker-path", stateDirFlag, runtimeDirFlag}, secureFileFlags...)

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
	for flag, dir := range map[string]string{stateDirFlag: cfg.folders.state, runtimeDirFlag: cfg.folders.runtime} {
		// systemd does not start a service whose ReadWritePaths= are missing.
		if c.IsSet(flag) {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return fmt.Errorf("make --%s: %w", flag, err)
			}
		}
	}
	dir := c.String("unit-dir")
	for _, u := range units {
		if err := replaceFile(crashpoint.UnitFile, filepath.Join(dir, u.name), u.text, 0o644); err != nil {
			return hint(fmt.Errorf("write the unit: %w", err), "run it as root, and name a --unit-dir that exists")
		}
		fmt.Fprintf(c.App.Writer, "wrote %s\n", filepath.Join(dir, u.name))
	}
	if util.IsRunningSystemd() {
		if err := systemctl(c.Context, "daemon-reload"); err != nil {
			return err
		}
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

func uninstallUnits(c *cli.Context) error {
	dir := c.String("unit-dir")
	// The socket first: it would start the service again.
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
