package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	configfile "github.com/core-tools/hsu-master/config"
	"github.com/core-tools/hsu-master/deploy"
	"github.com/core-tools/hsu-master/internal/safefile"
)

// Account is the user that the service runs as.
type Account struct {
	name     string
	uid, gid int
	groups   []uint32 // supplementary
}

// LookUp returns the account of a user of this host. If there is no such user, the error is one of [exit.Usage].
func LookUp(name string) (Account, error) {
	found, err := user.Lookup(name)
	if err != nil {
		return Account{}, exit.Hint(exit.Usagef("--%s %q: %w", UserFlag, name, err),
			"create one: useradd --system --no-create-home NAME")
	}
	uid, err := strconv.Atoi(found.Uid)
	gid, gidErr := strconv.Atoi(found.Gid)
	if err := errors.Join(err, gidErr); err != nil {
		return Account{}, fmt.Errorf("user %s: %w", name, err)
	}
	a := Account{name: name, uid: uid, gid: gid}
	groups, err := found.GroupIds()
	for _, text := range groups {
		group, groupErr := strconv.ParseUint(text, 10, 32)
		err = errors.Join(err, groupErr)
		a.groups = append(a.groups, uint32(group))
	}
	if err != nil {
		return Account{}, fmt.Errorf("groups of user %s: %w", name, err)
	}
	return a, nil
}

// makeFolder creates a folder owned by the user. It leaves an existing folder unchanged.
func (a Account) makeFolder(dir string) error {
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

// checkFile returns the faults of the configuration file for a master of the user: files that it cannot read, and keys
// that only root may do.
func (a Account) checkFile(ctx context.Context, i *Installation) error {
	if i.File == nil || a.uid == 0 || os.Geteuid() != 0 {
		return nil // it was checked by this process
	}
	file, err := filepath.Abs(i.File.Path)
	if err != nil {
		return fmt.Errorf("find the configuration: %w", err)
	}
	variables, err := serviceVariables(i.Options, a.name)
	if err != nil {
		return err
	}
	check := exec.CommandContext(ctx, i.Options.ExecStart[0], "config", "check", file)
	check.Dir = "/"
	for name, value := range variables {
		check.Env = append(check.Env, name+"="+value)
	}
	runAs(check, a)
	output, err := check.CombinedOutput()
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(strings.TrimPrefix(string(output), "hsu-master: error: "))
	return exit.Usagef("user %s cannot run %s: %w: %s", a.name, render.Printable(file), err, text)
}

// ServiceHost returns the host as the service sees it when it reads its configuration file: with the variables of the
// service, and without the rights of root if the user is another one.
func ServiceHost(o deploy.Options, user string) (configfile.Host, error) {
	host := configfile.ThisHost()
	variables, err := serviceVariables(o, user)
	if err != nil {
		return host, err
	}
	host.Variable = func(name string) (string, bool) {
		value, found := variables[name]
		return value, found
	}
	if user != RootUser {
		host.Root = false
		host.CheckTrusted = func(string) error { return nil }
	}
	return host, nil
}

// serviceVariables returns the environment of a service of the user: that of systemd.exec(5), and that of the unit.
func serviceVariables(o deploy.Options, name string) (map[string]string, error) {
	variables := map[string]string{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"USER": name, "LOGNAME": name,
		"STATE_DIRECTORY": StateRoot + "/" + o.Name, "RUNTIME_DIRECTORY": "/run/" + o.Name,
		"HSU_MASTER_ON_DAMAGE": "recover",
	}
	if found, err := user.Lookup(name); err == nil {
		variables["HOME"] = found.HomeDir
	}
	content, err := safefile.ReadInput(o.EnvironmentFile())
	if errors.Is(err, fs.ErrNotExist) {
		return variables, nil
	}
	more := map[string]string{}
	if err == nil {
		more, err = configfile.ParseEnvFile(string(content))
	}
	if err != nil {
		return nil, fmt.Errorf("read the variables of the service in %s: %w", o.EnvironmentFile(), err)
	}
	maps.Copy(variables, more)
	return variables, nil
}
