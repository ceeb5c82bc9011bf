package importer

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/core-tools/hsu-master/config"
)

// process imports a process.
func (c *processCompose) process(u unit, e config.TreeEntry) {
	p := &composed{processCompose: c, unit: u, name: e.Name, of: e.Value, policy: "never"}
	if e.Value.Kind != config.TreeMap {
		u.leaveOut("%s %s must be a map", compose, e.Name)
		return
	}
	p.replicas, _ = strconv.Atoi(textOf(e.Value, "replicas"))
	u.set("kind", "managed")
	p.command()
	walk(u.block, compose, "", e.Value, p.fields())
	p.finish()
}

// composed is a process that becomes a unit.
type composed struct {
	*processCompose
	unit     unit
	name     string
	of       *config.Tree
	replicas int
	policy   string // of restarts
}

// command imports the command, or the entrypoint if there is no command.
func (p *composed) command() {
	line, entrypoint := p.of.Get("command"), p.of.Get("entrypoint")
	if line != nil && line.Kind == config.TreeList { // that is what entrypoint is for
		line, entrypoint = nil, line
	}
	if line == nil || line.Text == "" {
		if entrypoint == nil {
			return // the loader reports it
		}
		list, ok := texts(entrypoint)
		if !ok || len(list) == 0 {
			p.unit.leaveOut("%s entrypoint %s", compose, errList)
			return
		}
		words := make([]text, len(list))
		for i, word := range list {
			var err error
			if words[i], err = p.expand(word, false); err != nil {
				p.unit.leaveOut("%s entrypoint: %s", compose, err)
				return
			}
		}
		args := arguments(words)
		if dir := textOf(p.of, "working_dir"); dir != "" && strings.Contains(args[0], "/") && args[0][0] != '/' {
			args[0] = plainLiteral(dir) + "/" + strings.TrimPrefix(args[0], "./")
		}
		p.unit.setList("command", args)
		return
	}
	words, err := p.shellLine(line.Text)
	if err != nil {
		p.unit.leaveOut("%s command: %s", compose, err)
		return
	}
	p.unit.setList("command", words)
	if entrypoint != nil {
		p.unit.note("%s entrypoint: %s: has no effect beside command", compose, flat(entrypoint))
	}
}

// shellLine returns the command that runs a line in the shell.
func (p *composed) shellLine(line string) ([]string, error) {
	expanded, err := p.expand(line, true)
	if err != nil {
		return nil, err
	}
	return arguments(shell(p.shell[0], p.shell[1], expanded)), nil
}

func (p *composed) fields() map[string]field {
	u := p.unit
	return map[string]field{
		"command": ignored, "entrypoint": ignored,
		"working_dir": textField(func(s string) error {
			dir, err := p.expand(s, false)
			if err != nil {
				return err
			}
			return setPlain(u.block, "working_dir", dir)
		}),
		"environment": func(t *config.Tree) error { return p.environment(u.block, t) },
		"env_file": func(t *config.Tree) error {
			list, ok := texts(t)
			for i, name := range list {
				list[i] = plainLiteral(name)
			}
			if !ok {
				return errList
			}
			u.setList("env_file", list)
			return nil
		},
		"description":     textField(func(s string) error { u.note("%s", s); return nil }),
		"replicas":        copied(u.block, "replicas"),
		"disabled":        textField(p.disabled),
		"is_disabled":     textField(p.disabled),
		"depends_on":      p.dependsOn,
		"readiness_probe": p.probe("readiness"),
		"liveness_probe":  p.probe("liveness"),
		"availability":    p.availability(),
		"shutdown":        p.shutdown(),
		"schedule":        p.schedule(),
		"vars":            ignored,
		"success_exit_codes": func(t *config.Tree) error {
			codes, ok := texts(t)
			if !ok {
				return errList
			}
			u.setList("restart.success_codes", codes)
			return nil
		},
		"log_configuration": p.rotation(u.block, "log_configuration"),
		"log_location": textField(func(string) error {
			return errors.New("no counterpart: the output is in logs/ in the state directory")
		}),
		"is_daemon":           p.unusable("let the command stay in the foreground, then enable the unit"),
		"is_foreground":       p.unusable("a unit has no terminal"),
		"is_tty":              unlessFalse(errNoCounterpart),
		"is_elevated":         unlessFalse(errNoCounterpart),
		"is_interactive":      unlessFalse(errNoCounterpart),
		"disable_ansi_colors": unlessFalse(errNoCounterpart),
	}
}

// unusable returns the field of a flag with which the process cannot be a unit: the unit is disabled.
func (p *composed) unusable(reason string) field {
	return textField(func(s string) error {
		if !isTrue(s) {
			return nil
		}
		p.unit.set("enabled", "false")
		return errors.New("no counterpart: " + reason)
	})
}

// finish sets what depends on several keys.
func (p *composed) finish() {
	u := p.unit
	u.set("restart.policy", p.policy)
	text := flat(p.of)
	if p.replicas > 1 || strings.Contains(text, "PC_REPLICA_NUM") {
		u.at("environment").named("PC_REPLICA_NUM", "{replica}")
	}
	if strings.Contains(text, "PC_PROC_NAME") {
		u.at("environment").named("PC_PROC_NAME", literal(p.name).argument())
	}
}

func (p *composed) disabled(s string) error {
	if isTrue(s) {
		p.unit.set("enabled", "false")
	}
	return nil
}

// conditions maps those of process-compose to ours.
var conditions = map[string]string{
	"": "started", "process_started": "started", "process_healthy": "ready", "process_completed": "completed",
	"process_completed_successfully": "completed", "process_log_ready": "started",
}

func (p *composed) dependsOn(t *config.Tree) error {
	if t.Kind != config.TreeMap && t.Kind != config.TreeNull {
		return errMap
	}
	b := p.unit.at("depends_on")
	for _, e := range t.Entries {
		given := e.Value.Text // "name: process_healthy"
		if e.Value.Kind == config.TreeMap {
			given = textOf(e.Value, "condition")
		}
		condition, known := conditions[given]
		name, exists := p.unitOf[e.Name]
		switch {
		case !known:
			b.note("%s %s: %s: no counterpart", compose, e.Name, flat(e.Value))
			continue
		case !exists:
			b.note("%s %s: there is no such process", compose, e.Name)
			continue
		case given == "process_completed":
			b.note("%s process_completed of %s: here it must end with a success code", compose, e.Name)
		case given == "process_log_ready":
			b.note("%s process_log_ready of %s: no counterpart: here it waits for the start only", compose, e.Name)
		}
		b.named(name, condition)
	}
	return nil
}

func (p *composed) availability() field {
	u := p.unit
	return nested(u.block, compose, "availability", map[string]field{
		"restart": textField(func(s string) error {
			switch s {
			case "always":
				p.policy = "always"
			case "on_failure":
				p.policy = "on-failure"
			case "no", "false":
			case "exit_on_failure":
				return errors.New("no counterpart: essential: true also ends the master when the program succeeds")
			default:
				return errors.New("must be always, on_failure, exit_on_failure or no")
			}
			return nil
		}),
		"backoff_seconds": textField(func(s string) error {
			if err := setSeconds(u.block, "restart.backoff.initial", s); err != nil {
				return err
			}
			u.set("restart.backoff.factor", "1") // it does not grow
			return setSeconds(u.block, "restart.backoff.max", s)
		}),
		"max_restarts": textField(func(s string) error {
			if n, err := strconv.Atoi(s); err == nil && n <= 0 {
				return errors.New("no counterpart: a unit has a budget of restarts")
			}
			u.set("restart.budget.restarts", s)
			u.set("restart.retry_failed", "never")
			return nil
		}),
		"exit_on_end": textField(func(s string) error {
			if isTrue(s) {
				u.set("essential", "true")
			}
			return nil
		}),
		"exit_on_skipped": unlessFalse(errNoCounterpart),
	})
}

func (p *composed) shutdown() field {
	u := p.unit
	return nested(u.block, compose, "shutdown", map[string]field{
		"command": textField(func(s string) error {
			words, err := p.shellLine(s)
			if err == nil {
				u.setList("stop.command", words)
			}
			return err
		}),
		"signal": textField(func(s string) error {
			if s != "0" {
				u.set("stop.signal", signalName(s))
			}
			return nil
		}),
		"timeout_seconds": inSeconds(u.block, "stop.grace"),
		"parent_only":     unlessFalse(errors.New("no counterpart: signals go to the whole group of processes")),
	})
}

// shortcuts are the names that cron expressions can have.
var shortcuts = map[string]string{
	"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
	"@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}

func (p *composed) schedule() field {
	u := p.unit
	return nested(u.block, compose, "schedule", map[string]field{
		"cron": textField(func(s string) error {
			if fields := shortcuts[s]; fields != "" {
				s = fields
			}
			u.set("schedule", s)
			p.zones[textOf(p.of.Get("schedule"), "timezone")] = true
			return nil
		}),
		"timezone": ignored,
		"interval": textField(func(s string) error {
			fields := intervalFields(s)
			if fields == "" {
				u.set("enabled", "false")
				return errInterval
			}
			u.set("schedule", fields)
			return nil
		}),
		"run_on_start": unlessFalse(errors.New("no counterpart: the first run is the first time of the schedule")),
		"max_concurrent": textField(func(s string) error {
			if s == "1" || s == "0" {
				return nil
			}
			return errors.New("no counterpart: a time during a run is skipped")
		}),
	})
}

var errInterval = errors.New("no counterpart: a schedule has whole minutes that divide an hour, " +
	"or hours that divide a day")

// intervalFields returns the schedule for an interval, or "".
func intervalFields(s string) string {
	match := regexp.MustCompile(`^([0-9]{1,3})([mh])$`).FindStringSubmatch(s)
	if match == nil {
		return ""
	}
	n, _ := strconv.Atoi(match[1])
	switch {
	case n == 24 && match[2] == "h":
		return "0 0 * * *"
	case n > 0 && match[2] == "m" && n < 60 && 60%n == 0:
		return fmt.Sprintf("*/%d * * * *", n)
	case n > 0 && match[2] == "m" && n%60 == 0 && 24%(n/60) == 0:
		return fmt.Sprintf("0 */%d * * *", n/60)
	case n > 0 && match[2] == "h" && 24%n == 0:
		return fmt.Sprintf("0 */%d * * *", n)
	}
	return ""
}
