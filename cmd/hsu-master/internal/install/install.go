// Package install makes a master a service of systemd: it derives the rights and folders of the service from the
// configuration, refuses what would harm another service, and writes and removes the units.
package install

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

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	configfile "github.com/core-tools/hsu-master/config"
	"github.com/core-tools/hsu-master/deploy"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/safefile"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// The flags that errors and hints name.
const (
	UserFlag     = "user"
	NameFlag     = "name"
	WritableFlag = "writable"
)

// SystemUnits is the folder of the units of this host's administrator.
const SystemUnits = "/etc/systemd/system"

// StateRoot is where systemd makes the folders of StateDirectory=.
const StateRoot = "/var/lib"

// unitFile is one of the two units, with the name by which systemd knows it.
type unitFile struct{ name, text string }

// Installation is a master as a service. The caller sets the exported fields, then calls Prepare.
type Installation struct {
	// Options are without the rights and folders that the units need, which Prepare adds.
	Options   deploy.Options
	File      *configfile.File // of the command line; nil if there is none
	Specs     []unit.Spec
	UnitFault error             // why workers cannot be started
	Folders   []string          // of the state, and of the runtime
	Given     map[string]string // those of them that flags name, by flag
	Client    string            // flags by which commands find the master, with a blank after each

	units []unitFile
	needs needs
}

// Prepare makes the texts of the units for Print and Install. Workers can write to the given folders, and to those that
// the file needs. Options that no unit can express are wrong usage.
func (i *Installation) Prepare(writable []string) error {
	i.needs = needsOf(i.File, i.Specs, writable, i.Options.User)
	i.Options.Writable = i.needs.writable
	i.Options.ReadPaths = append(i.Options.ReadPaths, i.needs.read...)
	i.Options.Rights = i.needs.rights
	return i.render()
}

// render sets the units.
func (i *Installation) render() error {
	service, err := deploy.Service(i.Options)
	if err != nil {
		return exit.Usagef("write the service unit: %w", err)
	}
	socket, err := deploy.Socket(i.Options)
	if err != nil {
		return exit.Usagef("write the socket unit: %w", err)
	}
	i.units = []unitFile{{i.Options.ServiceName(), service}, {i.Options.SocketName(), socket}}
	return nil
}

// Print prints the units.
func (i *Installation) Print(w io.Writer) {
	for n, u := range i.units {
		if n > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "# %s\n%s", u.name, u.text)
	}
}

// Install writes the units into the folder dir, makes the folders of the service for its owner, and enables and starts
// the units if enable is set. It writes nothing if that would harm another service or running workers. It prints to w
// the steps that are left to the operator.
func (i *Installation) Install(ctx context.Context, w io.Writer, owner Account, dir string, enable bool) error {
	if err := owner.checkFile(ctx, i); err != nil {
		return err
	}
	service := i.Options.ServiceName()
	if err := checkFree(dir, i.Options); err != nil {
		return err
	}
	if err := checkStateFolder(filepath.Join(StateRoot, i.Options.Name)); err != nil {
		return err
	}
	before, err := os.ReadFile(filepath.Join(dir, service))
	if err == nil && util.IsRunningSystemd() {
		scopes, err := workerScopes(ctx, service)
		if err != nil {
			return err
		}
		if err := checkRunning("/proc", i.Options, scopes, owner); err != nil {
			return err
		}
	}
	if err := i.makeFolders(owner); err != nil {
		return err
	}
	if fault := i.UnitFault; fault != nil {
		fmt.Fprintf(w, "check what user %s will start, and that nobody else can replace it: %s\n",
			owner.name, render.Printable(fault.Error()))
	}
	changed, err := i.write(w, dir)
	if err != nil {
		return err
	}
	i.explain(w)
	if util.IsRunningSystemd() {
		if err := systemctl(ctx, i.Options, "daemon-reload"); err != nil {
			return err
		}
		if len(before) > 0 && len(changed) > 0 &&
			systemctl(ctx, i.Options, "is-active", "--quiet", service) == nil {
			fmt.Fprintf(w,
				"the running service keeps its old settings and rights until systemctl restart %s\n",
				strings.Join(changed, " "))
		}
	}
	return i.next(ctx, w, enable)
}

// makeFolders creates the folders that flags name: systemd does not start a service if a folder of ReadWritePaths= is
// missing.
func (i *Installation) makeFolders(owner Account) error {
	for flag, dir := range i.Given {
		if err := owner.makeFolder(dir); err != nil {
			return fmt.Errorf("create --%s: %w", flag, err)
		}
	}
	return nil
}

// write writes the units, and prints what differs from those before. It returns the names of the existing units that
// it has changed, the socket last: its change has to stop the service first.
func (i *Installation) write(w io.Writer, dir string) (changed []string, err error) {
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
	if slices.Equal(changed, []string{i.Options.SocketName()}) {
		changed = []string{i.Options.ServiceName(), i.Options.SocketName()}
	}
	return changed, nil
}

// next enables the units if that is asked for, and prints the next step.
func (i *Installation) next(ctx context.Context, w io.Writer, enable bool) error {
	service, socket := i.Options.ServiceName(), i.Options.SocketName()
	status := "hsu-master " + i.Client + "status"
	if !enable {
		fmt.Fprintf(w, "next: systemctl enable --now %s %s, then %s\n", socket, service, status)
		return nil
	}
	if err := systemctl(ctx, i.Options, "enable", "--now", socket, service); err != nil {
		return err
	}
	fmt.Fprintf(w, "enabled and started; next: %s\n", status)
	return nil
}

// Uninstall stops, disables and removes the units of that name in the folder, and keeps the state.
func Uninstall(ctx context.Context, w io.Writer, dir, name string) error {
	o := deploy.Options{Name: name}
	if err := deploy.CheckName(o.Name); err != nil {
		return exit.Usagef("--%s %w", NameFlag, err)
	}
	// The socket is stopped first: it would start the service again.
	names := []string{o.SocketName(), o.ServiceName()}
	installed := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		_, err := os.Lstat(filepath.Join(dir, name))
		return errors.Is(err, fs.ErrNotExist)
	})
	if len(installed) == 0 {
		fmt.Fprintf(w, "nothing to remove: there is no %s in %s\n", o.ServiceName(), dir)
		return nil
	}
	for _, name := range installed {
		if err := checkOurs(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if util.IsRunningSystemd() {
		if err := systemctl(ctx, o, append([]string{"disable", "--now"}, installed...)...); err != nil {
			return err
		}
	}
	for _, name := range installed {
		path := filepath.Join(dir, name)
		if err := os.Remove(path); err != nil {
			return exit.Hint(fmt.Errorf("remove the unit: %w", err), "run it as root")
		}
		fmt.Fprintf(w, "removed %s\n", path)
	}
	if util.IsRunningSystemd() {
		return systemctl(ctx, o, "daemon-reload")
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
