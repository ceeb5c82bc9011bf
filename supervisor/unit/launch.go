package unit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/placeholder"
	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/process/executable"
)

// Placeholders returns the values of placeholders in a worker. A port of 0 means that it has none.
func (u *Spec) Placeholders(worker string, port int) func(name string) (value string, known bool) {
	return func(name string) (string, bool) {
		switch name {
		case placeholder.Port:
			return strconv.Itoa(port), port != 0
		case placeholder.Unit:
			return u.Name, true
		case placeholder.Worker:
			return worker, true
		case placeholder.Replica:
			return strings.TrimPrefix(worker, u.Name+"-"), true
		}
		return "", false
	}
}

// Launch returns the arguments and the environment variables, NAME=VALUE, of a worker. In both, {port} is replaced by
// its port, {unit} by the name of the unit, {worker} by its id, {replica} by its number in the unit, and {{ by a brace.
// If an integrated unit has no {port} in its arguments, "--port N" is appended, the HSU convention. A port of 0 means
// that the worker has none.
func (u *Spec) Launch(worker string, port int) (args, env []string, err error) {
	for _, arg := range u.Args {
		expanded, err := placeholder.Expand(arg, u.Placeholders(worker, port))
		if err != nil {
			return nil, nil, fmt.Errorf("argument: %w", err)
		}
		args = append(args, expanded)
	}
	if port != 0 && u.Kind != Managed && !slices.ContainsFunc(u.Args, mentionsPort) {
		args = append(args, "--port", strconv.Itoa(port))
	}
	env, err = u.environ(worker, port)
	return args, env, err
}

// environ returns the environment variables of a worker and of its commands: those of the unit, with their placeholders
// replaced, and that of the port.
func (u *Spec) environ(worker string, port int) (env []string, err error) {
	for _, entry := range u.Env {
		name, value, _ := strings.Cut(entry, "=")
		expanded, err := placeholder.Expand(value, u.Placeholders(worker, port))
		if err != nil {
			return nil, fmt.Errorf("environment variable %s: %w", name, err)
		}
		env = append(env, name+"="+expanded)
	}
	if port != 0 {
		env = append(env, process.EnvWorkerPort+"="+strconv.Itoa(port))
	}
	return env, nil
}

func mentionsPort(arg string) bool { return placeholder.In(arg, placeholder.Port) }

// namePath is the next step of an operator if the executable of a worker is missing.
const namePath = "name the worker's executable"

// Executable returns the path of the unit's executable, and the file that its process will run: see
// [executable.Check].
func (u *Spec) Executable() (path string, runs identity.FileID, err error) {
	if path, runs, err = lookUpProgram(u.Path, namePath, u.Attributes); err != nil {
		return "", identity.FileID{}, HostError{keyCommand, err}
	}
	return path, runs, nil
}

// LookUp returns the path of a program: a name without a slash is looked up in PATH. Another one need not exist.
func LookUp(name string) (string, error) {
	if name == "" || strings.ContainsRune(name, filepath.Separator) {
		return name, nil
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is not in PATH: install it, or name it by its path", name)
	}
	return path, nil
}

// lookUpProgram returns the path of a program, and the file that its process, which has the attributes, will run. next
// is the next step of an operator if there is no such file.
func lookUpProgram(name, next string, as process.Attributes) (path string, runs identity.FileID, err error) {
	if path, err = LookUp(name); err != nil {
		return "", identity.FileID{}, err
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", identity.FileID{}, fmt.Errorf("%w: %s", err, next)
	case info.IsDir():
		return "", identity.FileID{}, fmt.Errorf("%s is a directory: name the executable in it", path)
	case !isExecutable(info):
		return "", identity.FileID{}, fmt.Errorf("%s is not executable: chmod +x it", path)
	}
	rights, err := as.Resolve()
	if err != nil {
		return "", identity.FileID{}, err
	}
	if runs, err = executable.Check(path, rights.Account.UID); err != nil {
		return "", identity.FileID{}, err
	}
	return path, runs, nil
}

// Found returns the unit with the path of its executable in place of a name that is looked up in PATH. If there is no
// such program, the unit is unchanged.
func (u *Spec) Found() *Spec {
	path, err := LookUp(u.Path)
	if err != nil || path == u.Path {
		return u
	}
	found := *u
	found.Path = path
	return &found
}

// Hash identifies the input of a start: the executable's content, the arguments, the names of the environment's
// variables, the directory, whether there is a port, where the output goes, and the attributes. It does not depend on
// the values of the environment, because it is not secret. It leaves out settings that do not affect a running process:
// replicas, timeouts, restart policy.
func (u *Spec) Hash() (string, error) {
	hash, _, err := u.Version()
	return hash, err
}

// Version returns the hash of the unit and that of its executable.
func (u *Spec) Version() (unit, exe string, err error) {
	path, err := LookUp(u.Path)
	if err == nil {
		exe, err = executable.Hash(path)
	}
	if err != nil {
		return "", "", fmt.Errorf("read the worker's executable: %w", err)
	}
	start := []any{u.Name, exe, u.Args}
	if word, noNumber := map[Port]string{NoPort: "no port", AnnouncedPort: "announced port"}[u.Port]; noNumber {
		start = append(start, word)
	}
	// These were added later. If a unit has none of them, its hash is that which earlier versions have recorded.
	type launch struct {
		Kind Kind     `json:",omitempty"`
		Dir  string   `json:",omitempty"`
		Env  []string `json:",omitempty"`
		Port Port     `json:",omitempty"`

		Log        logs.Target        `json:",omitempty"`
		Notify     string             `json:",omitempty"`
		Attributes process.Attributes `json:",omitzero"`
	}
	more := launch{
		Dir: u.Dir, Env: u.variables(), Port: max(u.Port, AutoPort),
		Log: u.Log.To, Notify: u.notification(), Attributes: u.Attributes,
	}
	if u.Kind == Managed {
		more.Kind = Managed
	}
	if !reflect.DeepEqual(more, launch{}) {
		start = append(start, more)
	}
	spec, err := json.Marshal(start)
	if err != nil {
		return "", "", fmt.Errorf("describe unit %s: %w", u.Name, err)
	}
	sum := sha256.Sum256(spec)
	return hex.EncodeToString(sum[:]), exe, nil
}

// variables returns the names of the variables in Env.
func (u *Spec) variables() []string {
	var names []string
	for _, entry := range u.Env {
		name, _, _ := strings.Cut(entry, "=")
		names = append(names, name)
	}
	return names
}
