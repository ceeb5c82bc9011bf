package main

import (
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/install"
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
