package importer

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// program is a section that becomes a unit.
type program struct {
	*supervisord
	unit      unit
	vars      map[string]text
	of        *section
	relative  []string // the command, if its program is a relative path
	directory string
}

var errNoCounterpart = errors.New("no counterpart")

// take imports an option. The error is the reason for which it becomes a comment.
func (p *program) take(o option, value text) error {
	u := p.unit
	switch o.name {
	case "command":
		return p.command(value)
	case "environment":
		list, err := pairs(value)
		for _, v := range list {
			u.at("environment").named(v.name, v.value.argument())
		}
		return err
	case "directory":
		setPath(u.block, "working_dir", value)
		p.directory, _ = value.plain()
	case "autostart":
		if !isTrue(o.value) {
			u.set("enabled", "false")
		}
	case "autorestart":
		return p.autorestart(o.value)
	case "exitcodes":
		codes := strings.FieldsFunc(o.value, func(r rune) bool { return r == ',' || r == ' ' })
		u.setList("restart.success_codes", codes)
	case "startsecs":
		err := setSeconds(u.block, "start.settle", o.value)
		if n, _ := strconv.Atoi(o.value); err == nil && n >= startTimeout {
			u.set("start.timeout", seconds(n+startTimeout))
		}
		return err
	case "startretries":
		u.set("restart.budget.restarts", o.value)
	case "stopsignal":
		u.set("stop.signal", signalName(o.value))
	case "stopwaitsecs":
		return setSeconds(u.block, "stop.grace", o.value)
	case "stopasgroup", "killasgroup":
		if !isTrue(o.value) {
			return errors.New("no counterpart: signals go to the whole group of processes")
		}
	case "user":
		return setPlain(u.block, "user", value)
	case "umask":
		u.set("umask", octal(o.value))
	case "redirect_stderr":
		if !isTrue(o.value) && p.of.get("stderr_logfile") == nil {
			return errors.New("no counterpart: stdout and stderr go to the same file")
		}
	case "numprocs", "numprocs_start": // done
	case "priority":
		return errors.New("no counterpart: depends_on sets the order of starts")
	default:
		return p.output(o)
	}
	return nil
}

func (p *program) command(value text) error {
	words, err := split(value)
	switch {
	case err != nil:
		return err
	case len(words) == 0:
		return errors.New("a command is missing")
	}
	for _, word := range words {
		if len(word) == 1 && word.refers("$") {
			p.unit.note("supervisord splits the value of %s into words: here it is one argument", word[0].ref)
		}
	}
	list := arguments(words)
	if strings.Contains(list[0], "/") && !strings.HasPrefix(list[0], "/") && !words[0].refers("$") {
		p.relative = list
	}
	p.unit.setList("command", list)
	return nil
}

func (p *program) autorestart(value string) error {
	policy := map[string]string{"unexpected": "on-failure"}[strings.ToLower(value)]
	switch {
	case policy != "":
	case isTrue(value):
		policy = "always"
	case isFalse(value):
		policy = "never"
	default:
		return errors.New("must be true, false or unexpected")
	}
	p.unit.set("restart.policy", policy)
	return nil
}

// output imports the options about the output of a program.
func (p *program) output(o option) error {
	u := p.unit
	switch o.name {
	case "stdout_logfile":
		switch {
		case isOutput(o.value):
			u.set("log.to", "inherit")
		case isSyslog(o.value):
			u.set("log.to", "journal")
		case !strings.EqualFold(o.value, "auto"):
			return errors.New("no counterpart: the output is in logs/ in the state directory")
		}
	case "stdout_syslog":
		if isTrue(o.value) {
			u.set("log.to", "journal")
		}
	case "stdout_logfile_maxbytes", "stdout_logfile_backups":
		return p.rotation(o)
	case "process_name":
		if o.value != "%(program_name)s" {
			return errors.New("no counterpart: workers are called UNIT-0, UNIT-1 and so on")
		}
	case "stderr_logfile", "stderr_logfile_maxbytes", "stderr_logfile_backups", "stderr_syslog":
		switch out := p.target("stdout"); {
		case out == "file":
			return errors.New("no counterpart: stdout and stderr go to the same file")
		case out != p.target("stderr"):
			return fmt.Errorf("no counterpart: stderr goes where stdout goes: log.to is %s", out)
		}
	default:
		return errNoCounterpart
	}
	return nil
}

// rotation imports the options about the rotation of the log.
func (p *program) rotation(o option) error {
	switch {
	case p.target("stdout") != "file": // there is nothing to rotate
	case o.name == "stdout_logfile_backups":
		p.unit.set("log.keep", o.value)
	case strings.Trim(o.value, "0") == "":
		return errors.New("no counterpart: a log is always rotated")
	default:
		p.unit.set("log.max_size", byteSize(o.value))
	}
	return nil
}

// target returns the value of log.to for a stream, stdout or stderr.
func (p *program) target(stream string) string {
	file := p.value(stream + "_logfile")
	switch {
	case isSyslog(file) || isTrue(p.value(stream+"_syslog")):
		return "journal"
	case isOutput(file):
		return "inherit"
	}
	return "file"
}

// value returns the value of an option, or "".
func (p *program) value(name string) string {
	if o := p.of.get(name); o != nil {
		return o.value
	}
	return ""
}

// isSyslog reports whether a log file stands for syslog, in older versions of supervisord.
func isSyslog(file string) bool { return strings.EqualFold(file, "syslog") }

// isOutput reports whether a log file is the output of supervisord itself.
func isOutput(file string) bool {
	outputs := []string{
		"/dev/stdout", "/dev/stderr", "/dev/fd/1", "/dev/fd/2", "/proc/self/fd/1", "/proc/self/fd/2",
	}
	return slices.Contains(outputs, file)
}

// setPath sets a path. In Python, "~" at its beginning is the home of the user.
func setPath(b *block, key string, value text) {
	if len(value) > 0 && value[0].ref == "" && value[0].r == '~' && (len(value) == 1 || value[1].r == '/') {
		value = append(reference("${HOME}"), value[1:]...)
	}
	if err := setPlain(b, key, value); err != nil {
		b.note("%s: %s", key, err)
	}
}

func setPlain(b *block, key string, value text) error {
	plain, ok := value.plain()
	if !ok {
		return errors.New("cannot differ between the replicas of a unit")
	}
	b.set(key, plain)
	return nil
}
