package importer

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/core-tools/hsu-master/config"
)

var (
	errMap  = errors.New("must be a map")
	errList = errors.New("must be a list")
	errText = errors.New("must be a text or number")
)

// processCompose is the import of a process-compose.yaml.
type processCompose struct {
	*document
	src       *source
	variables map[string]string // of the .env file
	vars      map[string]string // for templates
	shell     [2]string         // the program and its argument
	expands   bool              // $NAME is a variable of process-compose, not of the shell
	unitOf    map[string]string // from the names of processes to those of units
	zones     map[string]bool   // the time zones of schedules
	inlined   map[string]bool   // the variables of the .env file whose values are part of the result
}

// compose is the name of the format in comments.
const compose = ProcessCompose

func importProcessCompose(src *source) (*document, error) {
	root, err := config.ReadTree(src.path, src.content)
	if err != nil {
		return nil, err
	}
	processes := root.Get("processes")
	if processes == nil || processes.Kind != config.TreeMap {
		return nil, &ImportError{src.path, max(1, root.Line), "the map processes is missing: is it a process-compose.yaml?"}
	}
	c := &processCompose{
		document: newDocument(), src: src, vars: map[string]string{}, shell: [2]string{"bash", "-c"},
		expands: true, unitOf: map[string]string{}, zones: map[string]bool{},
		inlined: map[string]bool{},
	}
	var found bool
	if c.variables, found, err = dotenvOf(src); err != nil {
		return nil, err
	}
	if found {
		c.defaults.setList("env_file", []string{dotenv})
	}
	c.prepare(root)
	units := make([]unit, len(processes.Entries))
	for i, e := range processes.Entries { // depends_on can name later ones
		units[i] = c.unit(e.Name)
		c.unitOf[e.Name] = units[i].entry.name
	}
	for i, e := range processes.Entries {
		c.process(units[i], e)
	}
	for _, zone := range slices.Sorted(maps.Keys(c.zones)) {
		switch {
		case zone == "":
		case len(c.zones) == 1:
			c.setting("timezone", plainLiteral(zone))
		default:
			c.remark("%s timezone: %s: a file has one timezone for all schedules", compose, zone)
		}
	}
	if len(c.inlined) > 0 {
		c.head = append(c.head, "Values of these variables of .env are part of this file: "+
			strings.Join(slices.Sorted(maps.Keys(c.inlined)), ", ")+".")
	}
	return c.document, nil
}

// prepare imports the keys of the file itself.
func (c *processCompose) prepare(root *config.Tree) {
	if off := root.Get("disable_env_expansion"); off != nil && isTrue(off.Text) {
		c.expands = false
	}
	top := c.block()
	walk(top, compose, "", root, map[string]field{
		"version": ignored, "processes": ignored, "is_strict": ignored, "disable_env_expansion": ignored,
		"is_tui_disabled": ignored,
		"environment":     func(t *config.Tree) error { return c.environment(c.defaults, t) },
		"vars": func(t *config.Tree) error {
			for _, e := range t.Entries {
				c.vars[e.Name] = e.Value.Text
			}
			return nil
		},
		"shell": nested(top, compose, "shell", map[string]field{
			"shell_command":  textField(func(s string) error { c.shell[0] = s; return nil }),
			"shell_argument": textField(func(s string) error { c.shell[1] = s; return nil }),
		}),
		"log_level": textField(func(s string) error {
			c.setting("log.level", logLevel(s))
			return nil
		}),
		"log_configuration": c.rotation(c.defaults, "log_configuration"),
	})
	for _, e := range top.entries {
		c.remark("%s", e.text)
	}
}

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
	delay    int    // of the readiness probe, in seconds
}

// command imports the command, or the entrypoint if there is no command.
func (p *composed) command() {
	line, entrypoint := p.of.Get("command"), p.of.Get("entrypoint")
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
		"is_daemon": textField(func(s string) error {
			if !isTrue(s) {
				return nil
			}
			u.set("enabled", "false")
			return errors.New("no counterpart: let the command stay in the foreground, then enable the unit")
		}),
		"is_foreground": textField(func(s string) error {
			if !isTrue(s) {
				return nil
			}
			u.set("enabled", "false")
			return errors.New("no counterpart: a unit has no terminal")
		}),
		"is_tty":              unlessFalse(errNoCounterpart),
		"is_elevated":         unlessFalse(errNoCounterpart),
		"is_interactive":      unlessFalse(errNoCounterpart),
		"disable_ansi_colors": unlessFalse(errNoCounterpart),
	}
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

// environment imports a list of NAME=VALUE, or a map.
func (c *processCompose) environment(b *block, t *config.Tree) error {
	list, ok := texts(t)
	for _, e := range t.Entries {
		list, ok = append(list, e.Name+"="+e.Value.Text), true
	}
	if !ok {
		return errList
	}
	for _, pair := range list {
		name, value, isPair := strings.Cut(pair, "=")
		if !isPair {
			b.note("%s environment: %s: is not NAME=VALUE", compose, name)
			continue
		}
		expanded, err := c.variablesOf(value, false)
		if err != nil {
			b.note("%s environment: %s: %s", compose, name, err)
			continue
		}
		b.at("environment").named(name, expanded.argument())
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

// probe returns the field of a probe. A readiness probe is our health check unless there is a liveness probe too:
// process-compose restarts a process that is not ready.
func (p *composed) probe(kind string) field {
	key := kind
	if kind == "readiness" && p.of.Get("liveness_probe") == nil {
		key = "health"
	}
	path := kind + "_probe"
	return func(t *config.Tree) error {
		if t.Kind != config.TreeMap {
			return errMap
		}
		b := p.unit.at(key)
		period, failures, delay := 10, 3, 0
		counted := func(at *int, take field) field {
			return func(t *config.Tree) error {
				if n, err := strconv.Atoi(t.Text); err == nil {
					*at = min(max(n, 0), 1_000_000)
				}
				return take(t)
			}
		}
		walk(b, compose, path+".", t, map[string]field{
			"exec":                  p.execProbe(b, path),
			"http_get":              func(t *config.Tree) error { return p.httpProbe(b, t) },
			"grpc":                  func(t *config.Tree) error { return p.grpcProbe(b, t) },
			"period_seconds":        counted(&period, inSeconds(b, "interval")),
			"timeout_seconds":       inSeconds(b, "timeout"),
			"failure_threshold":     counted(&failures, copied(b, "failures")),
			"success_threshold":     copied(b, "successes"),
			"initial_delay_seconds": counted(&delay, ignored),
		})
		if t.Get("period_seconds") == nil {
			b.set("interval", seconds(period))
		}
		if t.Get("timeout_seconds") == nil {
			b.set("timeout", "1s")
		}
		if delay > 0 {
			b.note("%s %s.initial_delay_seconds: %d: is part of start.timeout here: checks begin at once, and do not count before",
				compose, path, delay)
			p.unit.set("start.timeout", seconds(max(30, delay+period*failures)))
		}
		return nil
	}
}

func (p *composed) execProbe(b *block, path string) field {
	return nested(b, compose, path+".exec", map[string]field{
		"command": textField(func(s string) error {
			words, err := p.shellLine(s)
			if err != nil {
				return err
			}
			b.set("type", "exec")
			b.setList("command", words)
			return nil
		}),
	})
}

func (p *composed) httpProbe(b *block, t *config.Tree) error {
	parts := map[string]string{"scheme": "http", "host": "127.0.0.1", "port": "", "path": "/"}
	status := "200"
	fields := map[string]field{
		"status_code": textField(func(s string) error { status = s; return nil }),
		"num_port":    ignored,
		"headers": func(t *config.Tree) error {
			for _, e := range t.Entries {
				values, ok := texts(e.Value)
				if !ok || len(values) != 1 {
					return errors.New("must be a map of texts")
				}
				b.at("headers").named(e.Name, plainLiteral(values[0]))
			}
			return nil
		},
	}
	for name := range parts {
		fields[name] = textField(func(s string) error {
			expanded, err := p.expand(s, false)
			if err == nil && s != "" {
				parts[name] = expanded.argument()
			}
			return err
		})
	}
	walk(b, compose, "http_get.", t, fields)
	if parts["port"] != "" {
		parts["port"] = ":" + parts["port"]
	}
	if !strings.HasPrefix(parts["path"], "/") {
		parts["path"] = "/" + parts["path"]
	}
	b.set("type", "http")
	b.set("url", strings.ToLower(parts["scheme"])+"://"+parts["host"]+parts["port"]+parts["path"])
	b.setList("status", []string{status})
	return nil
}

func (p *composed) grpcProbe(b *block, t *config.Tree) error {
	host, port := "127.0.0.1", ""
	walk(b, compose, "grpc.", t, map[string]field{
		"host":    textField(func(s string) error { host = s; return nil }),
		"port":    textField(func(s string) error { port = s; return nil }),
		"service": copied(b, "service"),
	})
	b.set("type", "grpc")
	b.set("address", literal(host+":"+port).argument())
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
				return errors.New("no counterpart: a schedule has whole minutes that divide an hour, or hours that divide a day")
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

// intervalFields returns the schedule for an interval, or "".
func intervalFields(s string) string {
	match := regexp.MustCompile(`^([0-9]{1,3})([mh])$`).FindStringSubmatch(s)
	if match == nil {
		return ""
	}
	n, _ := strconv.Atoi(match[1])
	switch {
	case n > 0 && match[2] == "m" && n < 60 && 60%n == 0:
		return fmt.Sprintf("*/%d * * * *", n)
	case n > 0 && match[2] == "m" && n%60 == 0 && 24%(n/60) == 0:
		return fmt.Sprintf("0 */%d * * *", n/60)
	case n > 0 && match[2] == "h" && 24%n == 0:
		return fmt.Sprintf("0 */%d * * *", n)
	}
	return ""
}

// rotation returns the field of a log_configuration.
func (c *processCompose) rotation(b *block, path string) field {
	return nested(b, compose, path, map[string]field{
		"rotation": nested(b, compose, path+".rotation", map[string]field{
			"max_size_mb": textField(func(s string) error { b.set("log.max_size", s+"MiB"); return nil }),
			"max_age_days": textField(func(s string) error {
				b.set("log.max_age", s+"d")
				return nil
			}),
			"max_backups": copied(b, "log.keep"),
			"compress":    copied(b, "log.compress"),
		}),
	})
}

// expand returns a text with the templates and variables of process-compose replaced.
func (p *composed) expand(s string, forShell bool) (text, error) {
	var t text
	for {
		before, after, found := strings.Cut(s, "{{")
		part, err := p.variablesOf(before, forShell)
		if err != nil {
			return nil, err
		}
		t = append(t, part...)
		if !found {
			return t, nil
		}
		inner, rest, closed := strings.Cut(after, "}}")
		if !closed {
			return nil, errors.New("{{ is not closed")
		}
		value, err := p.template(strings.TrimSpace(inner))
		if err != nil {
			return nil, err
		}
		t, s = append(t, value...), rest
		if len(t) > maxText {
			return nil, errLong
		}
	}
}

// template returns the value of a template that is a variable or a quoted text.
func (p *composed) template(inner string) (text, error) {
	if quoted, err := strconv.Unquote(inner); err == nil {
		return literal(quoted), nil
	}
	name, isVariable := strings.CutPrefix(inner, ".")
	switch {
	case name == "PC_REPLICA_NUM" && isVariable && p.replicas > 1:
		return reference("{replica}"), nil
	case name == "PC_REPLICA_NUM" && isVariable:
		return literal("0"), nil
	case name == "PC_PROC_NAME" && isVariable:
		return literal(p.name), nil
	}
	if own := p.of.Get("vars").Get(name); isVariable && own != nil && own.Kind == config.TreeText {
		return literal(own.Text), nil
	}
	if value, known := p.vars[name]; isVariable && known {
		return literal(value), nil
	}
	return nil, fmt.Errorf("the template {{%s}} has no counterpart", inner)
}

// composeVariable matches ${NAME}, ${NAME:-DEFAULT} or $NAME, without the dollar.
var composeVariable = regexp.MustCompile(`^(?:\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^${}]*))?\}|([A-Za-z_][A-Za-z0-9_]*))`)

// variablesOf replaces variables, which process-compose does before a shell sees a line.
func (c *processCompose) variablesOf(s string, forShell bool) (text, error) {
	if !c.expands {
		return literal(s), nil
	}
	var t text
	for {
		before, after, found := strings.Cut(s, "$")
		t = append(t, literal(before)...)
		match := composeVariable.FindStringSubmatch(after)
		switch {
		case !found:
			return t, nil
		case strings.HasPrefix(after, "$"): // the shell sees one dollar
			t, s = append(t, char{r: '$'}), after[1:]
		case match == nil:
			t, s = append(t, char{r: '$'}), after
		default:
			t = append(t, c.variable(match, forShell)...)
			s = after[len(match[0]):]
		}
		if len(t) > maxText {
			return nil, errLong
		}
	}
}

// variable returns what a variable stands for. The master does not know those of the .env file: they are left to a
// shell, which has them, and are replaced by their values elsewhere.
func (c *processCompose) variable(match []string, forShell bool) text {
	name, fallback := match[1]+match[3], match[2]
	value, inFile := c.variables[name]
	switch {
	case slices.Contains([]string{"PC_REPLICA_NUM", "PC_PROC_NAME"}, name), inFile && forShell:
		return literal("$" + match[0])
	case inFile:
		c.inlined[name] = true
		return literal(value)
	case fallback != "":
		return reference("${" + name + ":-" + fallback + "}")
	}
	c.src.variable(name)                  // notes one that is not set
	return reference("${" + name + ":-}") // process-compose replaces it by nothing
}
