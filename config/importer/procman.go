package importer

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/core-tools/hsu-master/config"
)

// procman is the import of a file of upstream HSU's process manager.
type procman struct {
	*document
	src *source
}

func importProcman(src *source) (*document, error) {
	root, err := config.ReadTree(src.path, src.content)
	if err != nil {
		return nil, err
	}
	p := &procman{newDocument(), src}
	list := root.Get("managed_processes")
	if list == nil {
		list = root.Get("workers") // in files of 2025
	}
	if list == nil || list.Kind != config.TreeList {
		return nil, &ImportError{
			src.path, max(1, root.Line),
			"the list managed_processes (or workers) is missing: is it a configuration of procman?",
		}
	}
	top := p.block()
	manager := nested(top, Procman, "process_manager", map[string]field{
		"port": textField(func(string) error {
			return errors.New("had no effect; the key listen is the address that clients use")
		}),
		"log_level": textField(func(s string) error {
			p.setting("log.level", logLevel(s))
			return errors.New("had no effect, and has one here")
		}),
	})
	walk(top, Procman, "", root, map[string]field{
		"managed_processes": ignored, "workers": ignored, "process_manager": manager, "master": manager,
	})
	for _, e := range top.entries {
		p.remark("%s", e.text)
	}
	for i, item := range list.Items {
		p.process(i, item)
	}
	return p.document, nil
}

// process imports a process of the list.
func (p *procman) process(i int, of *config.Tree) {
	id := textOf(of, "id")
	if id == "" {
		id = fmt.Sprintf("process-%d", i)
	}
	u := p.unit(id)
	m := &managed{unit: u, kind: kindOf(textOf(of, "type"))}
	if m.kind == "" {
		u.leaveOut("its type %q is not one of standard_managed, integrated_managed, unmanaged", textOf(of, "type"))
		m.kind = "managed"
	}
	u.set("kind", m.kind)
	if m.kind == "integrated" {
		u.note("a program of August 2025 or later ignores --port: give it port: announced, and serve it a registry")
	}
	walk(u.block, Procman, "", of, map[string]field{
		"id": ignored, "type": ignored,
		"enabled":    copied(u.block, "enabled"),
		"management": m.management(), "unit": m.management(),
		"profile_type": textField(func(s string) error {
			if s == "default" {
				return nil
			}
			return errNoCounterpart
		}),
	})
	m.finish()
}

// kindOf returns our kind for a type, or "".
func kindOf(kind string) string {
	switch kind {
	case "standard_managed", "managed":
		return "managed"
	case "integrated_managed", "integrated":
		return "integrated"
	case "unmanaged":
		return "unmanaged"
	}
	return ""
}

// managed is a process that becomes a unit.
type managed struct {
	unit unit
	kind string
	acts []string // that are allowed
}

// management returns the field with the settings of a process, below the name of its type.
func (m *managed) management() field {
	settings := m.settings()
	return func(t *config.Tree) error {
		if t.Kind != config.TreeMap {
			return errMap
		}
		fields := map[string]field{}
		for _, e := range t.Entries {
			if kindOf(e.Name) == m.kind {
				fields[e.Name] = nested(m.unit.block, Procman, e.Name, settings)
			}
		}
		walk(m.unit.block, Procman, "", t, fields)
		return nil
	}
}

func (m *managed) settings() map[string]field {
	u := m.unit
	return map[string]field{
		"metadata": nested(u.block, Procman, "metadata", map[string]field{
			"name": ignored,
		}),
		"control":      nested(u.block, Procman, "control", m.control()),
		"health_check": m.healthCheck(),
		"health_check_run_options": func(t *config.Tree) error {
			b := u.at("health")
			return nested(b, Procman, "health_check_run_options", runOptions(b))(t)
		},
		"discovery": m.discovery,
	}
}

func (m *managed) control() map[string]field {
	u := m.unit
	return map[string]field{
		"execution": m.execution,
		"restart_policy": textField(func(s string) error {
			policy := map[string]string{
				"never": "never", "on-failure": "on-failure", "always": "always", "unless-stopped": "always",
			}[s]
			if policy == "" {
				return errors.New("must be never, on-failure, always or unless-stopped")
			}
			u.set("restart.policy", policy)
			return nil
		}),
		"context_aware_restart": nested(u.block, Procman, "context_aware_restart", map[string]field{
			"default": nested(u.block, Procman, "context_aware_restart.default", map[string]field{
				"max_retries":  copied(u.block, "restart.budget.restarts"),
				"retry_delay":  copied(u.block, "restart.backoff.initial"),
				"backoff_rate": copied(u.block, "restart.backoff.factor"),
			}),
		}),
		"graceful_timeout": copied(u.block, "stop.grace"),
		"limits":           nested(u.block, Procman, "limits", m.limits()),
		"can_terminate":    textField(func(s string) error { return m.may(s, "stop") }),
		"can_restart":      textField(func(s string) error { return m.may(s, "restart") }),
		"allowed_signals": func(*config.Tree) error {
			return errors.New("had no effect; allow: [signal] permits all signals")
		},
	}
}

// execution imports the command. Its program and arguments are two keys.
func (m *managed) execution(t *config.Tree) error {
	u := m.unit
	var program, dir string
	var args []string
	err := nested(u.block, Procman, "execution", map[string]field{
		"executable_path": textField(func(s string) error { program = s; return nil }),
		"args": func(t *config.Tree) error {
			list, ok := texts(t)
			if !ok {
				return errList
			}
			args = list
			return nil
		},
		"environment": func(t *config.Tree) error {
			return environment(u.block, Procman, t, func(value string) (text, error) { return literal(value), nil })
		},
		"working_directory": textField(func(s string) error { dir = s; return nil }),
	})(t)
	if program != "" {
		u.setList("command", arguments(literals(append([]string{program}, args...)...)))
	}
	switch {
	case dir != "":
		u.set("working_dir", plainLiteral(dir))
	case strings.Contains(program, "/"):
		u.set("working_dir", plainLiteral(path.Dir(program))) // procman's default
	}
	return err
}

func (m *managed) may(s, act string) error {
	if isTrue(s) {
		m.acts = append(m.acts, act)
	}
	return nil
}

// limits imports limits, which had no effect on Linux.
func (m *managed) limits() map[string]field {
	u := m.unit
	return map[string]field{
		"memory": func(t *config.Tree) error {
			key := ""
			switch textOf(t, "policy") {
			case "restart", "restart_adjusted":
				key = "memory_restart"
			case "graceful_shutdown", "immediate_kill", "throttle":
				key = "limits.memory"
			}
			return nested(u.block, Procman, "limits.memory", map[string]field{
				"max_rss": textField(func(s string) error {
					if key == "" {
						return errors.New("no counterpart with this policy, which only reports")
					}
					return m.limit(key, s+"B")
				}),
				"policy": ignored,
			})(t)
		},
		"cpu": nested(u.block, Procman, "limits.cpu", map[string]field{
			"max_cores": textField(func(s string) error { return m.limit("limits.cpu", s) }),
		}),
		"process": nested(u.block, Procman, "limits.process", map[string]field{
			"max_processes":        textField(func(s string) error { return m.limit("limits.pids", s) }),
			"max_file_descriptors": textField(func(s string) error { return m.limit("limits.open_files", s) }),
		}),
	}
}

func (m *managed) limit(key, value string) error {
	if strings.Trim(value, "0.B") == "" {
		return nil // none
	}
	m.unit.note("%s had no effect on Linux, and has one here", key)
	m.unit.set(key, value)
	return nil
}

// healthCheck returns the field of a check. Its type decides which of its keys count.
func (m *managed) healthCheck() field {
	return func(t *config.Tree) error {
		if t.Kind != config.TreeMap {
			return errMap
		}
		b := m.unit.at("health")
		fields := map[string]field{
			"type": ignored, "run_options": nested(b, Procman, "run_options", runOptions(b)),
		}
		kind := textOf(t, "type")
		path := "health_check." + kind
		switch kind {
		case "process", "":
		case "http":
			fields[kind] = httpCheck(b, path)
		case "tcp", "grpc":
			fields[kind] = addressCheck(b, path)
		case "exec":
			fields[kind] = commandCheck(b, path)
		default:
			return errNoCounterpart
		}
		if kind != "" {
			b.set("type", kind)
		}
		walk(b, Procman, "health_check.", t, fields)
		return nil
	}
}

func httpCheck(b *block, path string) field {
	return nested(b, Procman, path, map[string]field{
		"url": textField(func(s string) error { b.set("url", literal(s).argument()); return nil }),
		"method": textField(func(s string) error {
			if strings.EqualFold(s, "GET") {
				return nil
			}
			return errors.New("no counterpart: checks use GET")
		}),
		"headers": func(t *config.Tree) error {
			for _, e := range t.Entries {
				b.at("headers").named(e.Name, plainLiteral(e.Value.Text))
			}
			return nil
		},
	})
}

// addressCheck returns the field of a check by TCP or gRPC.
func addressCheck(b *block, path string) field {
	return func(t *config.Tree) error {
		var address, port string
		err := nested(b, Procman, path, map[string]field{
			"address": textField(func(s string) error { address = s; return nil }),
			"port":    textField(func(s string) error { port = s; return nil }),
			"service": copied(b, "service"),
			"method":  textField(func(string) error { return errMethod }),
		})(t)
		if port != "" {
			address += ":" + port
		}
		if address != "" {
			b.set("address", literal(address).argument())
		}
		return err
	}
}

func commandCheck(b *block, path string) field {
	return func(t *config.Tree) error {
		var words []string
		err := nested(b, Procman, path, map[string]field{
			"command": textField(func(s string) error { words = append([]string{s}, words...); return nil }),
			"args": func(t *config.Tree) error {
				list, ok := texts(t)
				if !ok {
					return errList
				}
				words = append(words, list...)
				return nil
			},
		})(t)
		b.setList("command", arguments(literals(words...)))
		return err
	}
}

var errMethod = errors.New("no counterpart: the method is Check")

func runOptions(b *block) map[string]field {
	return map[string]field{
		"interval": copied(b, "interval"), "timeout": copied(b, "timeout"),
		"initial_delay": textField(func(string) error {
			return errors.New("no counterpart: checks begin at once, and a start may take start.timeout")
		}),
		"retries": textField(func(string) error { return errors.New("had no effect; failures is the key here") }),
	}
}

// methods are the keys of a discovery that count for its method.
var methods = map[string][]string{
	"pid-file": {"pid_file"}, "process-name": {"process_name", "process_args"}, "port": {"port"},
	"service-name": {"service_name"},
}

func (m *managed) discovery(t *config.Tree) error {
	u := m.unit
	fields := map[string]field{
		"pid_file":     copied(u.block, "discover.pid_file"),
		"process_name": copied(u.block, "discover.process.name"),
		"process_args": func(t *config.Tree) error {
			list, ok := texts(t)
			if !ok {
				return errList
			}
			for i, word := range list {
				list[i] = plainLiteral(word)
			}
			u.setList("discover.process.args", list)
			return nil
		},
		"port":         copied(u.block, "discover.port"),
		"service_name": copied(u.block, "discover.systemd"),
	}
	if used, known := methods[textOf(t, "method")]; known {
		for key := range fields {
			if !slices.Contains(used, key) {
				fields[key] = func(*config.Tree) error { return errors.New("has no effect with this method") }
			}
		}
		fields["method"] = ignored
	}
	return nested(u.block, Procman, "discovery", fields)(t)
}

// finish sets what depends on several keys.
func (m *managed) finish() {
	u := m.unit
	if at := slices.Index(m.acts, "restart"); at >= 0 && !u.has("discover.systemd") {
		u.note("%s can_restart: no counterpart: only a unit of systemd can be restarted", Procman)
		m.acts = slices.Delete(m.acts, at, at+1)
	}
	if len(m.acts) > 0 {
		u.setList("allow", m.acts)
	}
	if m.kind == "unmanaged" {
		return
	}
	if !u.has("restart.policy") && m.kind == "managed" {
		u.set("restart.policy", "on-failure") // procman's default
	}
	if !u.has("stop.grace") {
		u.set("stop.grace", "20s") // procman's default
	}
}
