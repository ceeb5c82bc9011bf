package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/util"
	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/deploy"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/safefile"
)

const (
	serviceUserFlag = "user"
	serviceNameFlag = "name"
	unitDirFlag     = "unit-dir"
	writableFlag    = "writable"
)

// systemUnits is the folder of the units of this host's administrator.
const systemUnits = "/etc/systemd/system"

// stateRoot is where systemd makes the folders of StateDirectory=.
const stateRoot = "/var/lib"

func systemdCommand() *cli.Command {
	unitDir := func() cli.Flag {
		return &cli.StringFlag{Name: unitDirFlag, Value: systemUnits, Usage: "`DIR` directory of the unit files"}
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
		Name: serviceNameFlag, Value: deploy.DefaultName,
		Usage: "`NAME` name of the units and directories; each master of a host has its own",
	}
}

// serviceFlagsOfUnit returns the flags of the units that are not flags of run.
func serviceFlagsOfUnit() []cli.Flag {
	return []cli.Flag{
		serviceName(),
		&cli.StringFlag{
			Name: serviceUserFlag, Value: "root",
			Usage: "`USER` user that the master and its workers run as, and that owns the directories",
		},
		&cli.StringSliceFlag{
			Name: writableFlag,
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
	for n, u := range i.units {
		if n > 0 {
			fmt.Fprintln(c.App.Writer)
		}
		fmt.Fprintf(c.App.Writer, "# %s\n%s", u.name, u.text)
	}
	return nil
}

func installUnits(c *cli.Context) error {
	owner, err := lookUp(c.String(serviceUserFlag))
	if err != nil {
		return err
	}
	i, err := installationOf(c)
	if err != nil {
		return err
	}
	if err := owner.checkFile(c.Context, i); err != nil {
		return err
	}
	dir, service := c.String(unitDirFlag), i.options.ServiceName()
	if err := checkFree(dir, i.options); err != nil {
		return err
	}
	if err := checkStateFolder(filepath.Join(stateRoot, i.options.Name)); err != nil {
		return err
	}
	before, err := os.ReadFile(filepath.Join(dir, service))
	if err == nil && util.IsRunningSystemd() {
		scopes, err := workerScopes(c.Context, service)
		if err != nil {
			return err
		}
		if err := checkRunning("/proc", i.options, scopes, owner); err != nil {
			return err
		}
	}
	if err := i.makeFolders(c, owner); err != nil {
		return err
	}
	if fault := i.cfg.UnitFault; fault != nil {
		fmt.Fprintf(c.App.Writer, "check that user %s may execute it, and nobody else replace it: %s\n",
			owner.name, render.Printable(fault.Error()))
	}
	changed, err := i.write(c.App.Writer, dir)
	if err != nil {
		return err
	}
	i.explain(c.App.Writer)
	if util.IsRunningSystemd() {
		if err := systemctl(c.Context, i.options, "daemon-reload"); err != nil {
			return err
		}
		if len(before) > 0 && len(changed) > 0 &&
			systemctl(c.Context, i.options, "is-active", "--quiet", service) == nil {
			fmt.Fprintf(c.App.Writer,
				"the running service keeps its old settings and rights until systemctl restart %s\n",
				strings.Join(changed, " "))
		}
	}
	return i.next(c)
}

// makeFolders creates the folders that flags name: systemd does not start a service if a folder of ReadWritePaths= is
// missing.
func (i installation) makeFolders(c *cli.Context, owner account) error {
	for flag, dir := range map[string]string{stateDirFlag: i.cfg.folders.state, runtimeDirFlag: i.cfg.folders.runtime} {
		if !c.IsSet(flag) {
			continue
		}
		if err := owner.makeFolder(dir); err != nil {
			return fmt.Errorf("create --%s: %w", flag, err)
		}
	}
	return nil
}

// write writes the units, and prints what differs from those before. It returns the names of the existing units that
// it has changed, the socket last: its change has to stop the service first.
func (i installation) write(w io.Writer, dir string) (changed []string, err error) {
	for _, u := range i.units {
		path := filepath.Join(dir, u.name)
		before, err := os.ReadFile(path)
		switch {
		case err == nil && string(before) == u.text:
			fmt.Fprintf(w, "unchanged: %s\n", path)
			continue
		case err == nil:
			changed = append(changed, u.name)
		}
		if err := safefile.Replace(crashpoint.UnitFile, path, u.text, 0o644); err != nil {
			return nil, exit.Hint(fmt.Errorf("write the unit: %w", err),
				"run it as root, and name a --unit-dir that exists")
		}
		fmt.Fprintf(w, "wrote %s\n", path)
		if len(before) > 0 {
			for _, line := range changedSettings(string(before), u.text) {
				fmt.Fprintf(w, "  %s\n", render.Printable(line))
			}
		}
	}
	if slices.Equal(changed, []string{i.options.SocketName()}) {
		changed = []string{i.options.ServiceName(), i.options.SocketName()}
	}
	return changed, nil
}

// next enables the units if that is asked for, and prints the next step.
func (i installation) next(c *cli.Context) error {
	service, socket := i.options.ServiceName(), i.options.SocketName()
	status := "hsu-master " + i.client() + "status"
	if !c.Bool("enable") {
		fmt.Fprintf(c.App.Writer, "next: systemctl enable --now %s %s, then %s\n", socket, service, status)
		return nil
	}
	if err := systemctl(c.Context, i.options, "enable", "--now", socket, service); err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "enabled and started; next: %s\n", status)
	return nil
}

func uninstallUnits(c *cli.Context) error {
	dir, o := c.String(unitDirFlag), deploy.Options{Name: c.String(serviceNameFlag)}
	if err := deploy.CheckName(o.Name); err != nil {
		return exit.Usagef("--%s %w", serviceNameFlag, err)
	}
	// The socket is stopped first: it would start the service again.
	names := []string{o.SocketName(), o.ServiceName()}
	installed := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		_, err := os.Lstat(filepath.Join(dir, name))
		return errors.Is(err, fs.ErrNotExist)
	})
	if len(installed) == 0 {
		fmt.Fprintf(c.App.Writer, "nothing to remove: there is no %s in %s\n", o.ServiceName(), dir)
		return nil
	}
	for _, name := range installed {
		if err := checkOurs(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if util.IsRunningSystemd() {
		if err := systemctl(c.Context, o, append([]string{"disable", "--now"}, installed...)...); err != nil {
			return err
		}
	}
	for _, name := range installed {
		path := filepath.Join(dir, name)
		if err := os.Remove(path); err != nil {
			return exit.Hint(fmt.Errorf("remove the unit: %w", err), "run it as root")
		}
		fmt.Fprintf(c.App.Writer, "removed %s\n", path)
	}
	if util.IsRunningSystemd() {
		return systemctl(c.Context, o, "daemon-reload")
	}
	return nil
}

func systemctl(ctx context.Context, o deploy.Options, args ...string) error {
	output, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		return exit.Hint(fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err,
			strings.TrimSpace(string(output))),
			"see journalctl -u %s", o.ServiceName())
	}
	return nil
}
