package install

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	configfile "github.com/core-tools/hsu-master/config"
	"github.com/core-tools/hsu-master/deploy"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// RootUser is the user that may give workers other users and more rights.
const RootUser = "root"

// needs are the requirements of a configuration file on the service.
type needs struct {
	rights   deploy.Rights
	reasons  []string // of rights: a unit and a key each
	missing  []string // units and keys whose rights only a service of root can have
	writable []string
	readOnly map[string][]string // working_dirs that are not writable, with their units
	read     []string            // files and folders of the units
}

// needsOf returns the needs of the units. given are folders that are writable in any case.
func needsOf(file *configfile.File, specs []unit.Spec, given []string, user string) needs {
	n := needs{writable: slices.Clone(given), readOnly: map[string][]string{}}
	if file == nil {
		return n
	}
	files := file.Files()
	n.read = append(n.read, files...)
	for _, u := range file.Units {
		n.read = append(n.read, u.Program.EnvFile...)
	}
	for _, u := range specs {
		if !u.Starts() {
			continue
		}
		if path, _, err := u.Executable(); err == nil {
			n.read = append(n.read, path)
		}
		n.addFolder(u, files)
		n.addRights(u, user == RootUser)
	}
	for i, path := range n.read {
		if target, err := filepath.EvalSymlinks(path); err == nil {
			n.read[i] = target
		}
	}
	slices.Sort(n.rights.Capabilities)
	n.rights.Capabilities = slices.Compact(n.rights.Capabilities)
	slices.Sort(n.writable)
	n.writable = slices.Compact(n.writable)
	return n
}

// addFolder decides whether workers can write to the folder of a unit. That of the configuration file, which it is by
// default, holds the programs that a master of root executes, and a folder of the system is not for workers: these stay
// read-only unless --writable names them.
func (n *needs) addFolder(u unit.Spec, files []string) {
	n.read = append(n.read, u.Dir)
	within := func(dir string) bool {
		return u.Dir == dir || strings.HasPrefix(u.Dir, strings.TrimSuffix(dir, "/")+"/")
	}
	info, err := os.Stat(u.Dir)
	switch {
	case slices.ContainsFunc(n.writable, within):
	case err == nil && info.IsDir() && !isSystem(u.Dir) &&
		!slices.ContainsFunc(files, func(file string) bool { return filepath.Dir(file) == u.Dir }):
		n.writable = append(n.writable, u.Dir)
	case slices.ContainsFunc(alwaysWritable, within):
	default:
		n.readOnly[u.Dir] = append(n.readOnly[u.Dir], u.Name)
	}
}

var alwaysWritable = []string{"/tmp", "/var/tmp"}

// isSystem reports whether a folder is one of the system, or contains one.
func isSystem(dir string) bool {
	for _, system := range []string{
		"/bin", "/boot", "/dev", "/efi", "/etc", "/lib", "/lib64", "/proc", "/root", "/run", "/sbin", "/sys", "/usr",
		"/var/lib", "/var/log", "/var/cache", "/var/spool", "/home", "/opt", "/srv", "/mnt", "/media",
	} {
		if dir == system || dir == "/" || strings.HasPrefix(system, dir+"/") {
			return true
		}
	}
	for _, system := range []string{"/bin", "/boot", "/dev", "/efi", "/etc", "/lib", "/proc", "/sbin", "/sys", "/usr"} {
		if strings.HasPrefix(dir, system+"/") && !strings.HasPrefix(dir, "/usr/local/") {
			return true
		}
	}
	return false
}

// addRights adds the rights that the master needs for the workers of a unit.
func (n *needs) addRights(u unit.Spec, root bool) {
	a := u.Attributes
	add := func(key string, privileged, resources bool, capabilities ...string) {
		if !root && len(capabilities) > 0 {
			n.missing = append(n.missing, u.Name+": "+key)
			return
		}
		n.rights.Capabilities = append(n.rights.Capabilities, capabilities...)
		n.rights.Privileged = n.rights.Privileged || privileged
		n.rights.Resources = n.rights.Resources || resources
		n.reasons = append(n.reasons, u.Name+": "+key)
	}
	if a.User != "" || a.Group != "" {
		add("user", true, false, "CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_SYS_PTRACE")
	}
	if a.User != "" && u.Notifies() { // the socket belongs to the user, and is in the runtime folder
		add("health with notify", true, false, "CAP_CHOWN")
		n.rights.Enter = n.rights.Enter || root
	}
	if a.Nice < 0 {
		add("nice", false, true, "CAP_SYS_NICE")
	} else if a.Nice > 0 {
		add("nice", false, true)
	}
	if a.OpenFiles != nil && *a.OpenFiles > deploy.ServiceFiles {
		n.rights.OpenFiles = max(n.rights.OpenFiles, *a.OpenFiles)
		add("limits.open_files", false, false)
	}
	if a.Capabilities != nil && (len(a.Capabilities) > 0 || !a.NoNewPrivileges) {
		listed := []string{"CAP_SETPCAP"}
		for _, name := range a.Capabilities {
			listed = append(listed, "CAP_"+name)
		}
		add("capabilities", true, false, listed...)
	}
}

// explain prints the rights of the service that the operator should know.
func (i *Installation) explain(w io.Writer) {
	folders := slices.Clone(i.Folders)
	for _, dir := range slices.Concat(i.Options.ReadWritePaths, i.Options.Writable, alwaysWritable) {
		if !slices.Contains(folders, dir) {
			folders = append(folders, dir)
		}
	}
	fmt.Fprintf(w, "workers can write to %s, and nowhere else\n", render.Printable(strings.Join(folders, " ")))
	for _, dir := range slices.Sorted(maps.Keys(i.needs.readOnly)) {
		fmt.Fprintf(w, "workers of %s cannot write to their working_dir: --%s %s allows it\n",
			strings.Join(i.needs.readOnly[dir], ", "), WritableFlag, render.Printable(dir))
	}
	if !i.needs.rights.IsZero() {
		granted := ""
		if list := i.needs.rights.Capabilities; len(list) > 0 {
			granted = " (" + strings.Join(list, " ") + ")"
		}
		fmt.Fprintf(w, "the service gets more rights%s for %s\n", granted, strings.Join(i.needs.reasons, ", "))
	}
	if len(i.needs.missing) > 0 {
		fmt.Fprintf(w, "only a service of root can have the rights for %s\n", strings.Join(i.needs.missing, ", "))
	}
	if i.Options.User != RootUser {
		fmt.Fprintf(w, "the workers are in the service's cgroup: to kill the master only, use "+
			"systemctl kill --kill-whom=main %s\n", i.Options.ServiceName())
	}
}
