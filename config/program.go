package config

import (
	"errors"
	"strconv"
	"strings"
)

// Program is the process of a worker: its command, environment and rights.
type Program struct {
	Command         []string
	WorkingDir      string
	User, Group     string
	Umask           *Umask
	Nice            int
	Environment     map[string]string // with that of EnvFile
	EnvFile         []string
	Capabilities    Capabilities
	NoNewPrivileges bool
}

func (u *Unit) programKeys() []key {
	p := &u.Program
	return []key{
		{
			name: "command", value: command(&p.Command), kinds: started, change: restartsWorker,
			doc: "a program without a slash is looked up in PATH; a relative one starts at the folder of the file",
		},
		{
			name: "working_dir", value: filePath(&p.WorkingDir), def: ".", kinds: started, change: restartsWorker,
			doc: "folder that the workers run in",
		},
		{
			name: "user", value: account(&p.User, "user"), kinds: started, change: restartsWorker,
			doc: "user that the workers run as, with its supplementary groups; for a master that runs as root",
		},
		{
			name: "group", value: account(&p.Group, "group"), kinds: started, change: restartsWorker,
			doc: "group that the workers run as; the default is that of the user",
		},
		{
			name: "umask", value: optional(&p.Umask, umask), kinds: started, change: restartsWorker,
			doc: "mode bits that new files do not get, in octal; the default is that of the master",
		},
		{
			name: "nice", value: number(&p.Nice, -20, 19), def: "0", kinds: started, change: restartsWorker,
			doc: "scheduling priority; below 0 is for a master that runs as root",
		},
		{
			name: "environment", value: textMap(&p.Environment, variable, checkVariable), kinds: started,
			change: restartsWorker, doc: "environment variables, in addition to those of the master",
		},
		{
			name: "env_file", value: listOf(&p.EnvFile, filePath), kinds: started, change: restartsWorker,
			doc: "files with lines NAME=VALUE; later ones win, and `environment` wins over all",
		},
		{
			name: "capabilities", value: capabilities{&p.Capabilities}, def: "keep", kinds: started,
			change: restartsWorker, doc: "capabilities that the workers can have; `keep` means those of the master",
		},
		{
			name: "no_new_privileges", value: yesNo(&p.NoNewPrivileges), def: "false", kinds: started,
			change: restartsWorker, doc: "keeps set-user-ID programs from giving the workers more rights",
		},
	}
}

// Umask is the mode bits that new files do not get.
type Umask uint32

func umask(at *Umask) value {
	const name = `an octal number from "0000" to "0777"`
	in := form{name: name, json: "string", pattern: `^0?[0-7]{3}$`}
	return scalar[Umask]{at: at, in: in, parse: func(s string) (Umask, error) {
		v, err := strconv.ParseUint(s, 8, 32)
		if err != nil || v > 0o777 || len(s) < 3 || len(s) > 4 {
			return 0, errors.New("must be " + name)
		}
		return Umask(v), nil
	}}
}

// account is the name of a user or group of this host.
func account(at *string, what string) value { return accountValue{at, what} }

type accountValue struct {
	at   *string
	what string
}

func (a accountValue) form() form { return form{name: "the name of a " + a.what, json: "string"} }

func (a accountValue) read(r *reader, n *node) {
	given, ok := r.text(n, plain, a.form().name)
	if !ok {
		return
	}
	look := r.host.User
	if a.what == "group" {
		look = r.host.Group
	}
	_, notNumber := strconv.ParseUint(given, 10, 32)
	switch {
	case !r.host.Root:
		r.fault(n, "only a master that runs as root can run a unit as another %s: leave it out", a.what)
	case a.what == "user" && strings.Contains(given, ":"):
		r.fault(n, "must be the name of a user: the key group takes the group")
	case notNumber != nil && look(given) != nil:
		r.fault(n, "there is no %s %s on this host", a.what, r.quote(n))
	default:
		*a.at = given
	}
}

// checkVariable returns an error for a name that no environment variable can have, or that the master sets itself.
func checkVariable(name string) error {
	switch {
	case name == "" || strings.ContainsAny(name, "=\x00"):
		return errors.New("is not the name of a variable")
	case strings.HasPrefix(name, "HSU_"):
		return errors.New("the variables HSU_... are set by the master")
	}
	return nil
}
