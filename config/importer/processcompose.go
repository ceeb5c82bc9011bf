package importer

import (
	"maps"
	"slices"
	"strings"

	"github.com/core-tools/hsu-master/config"
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
		return nil, &ImportError{
			src.path, max(1, root.Line), "the map processes is missing: is it a process-compose.yaml?",
		}
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

// environment imports variables.
func (c *processCompose) environment(b *block, t *config.Tree) error {
	return environment(b, compose, t, func(value string) (text, error) { return c.variablesOf(value, false) })
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
