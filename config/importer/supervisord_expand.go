package importer

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// common returns the expansions that all options of a program can have.
func (s *supervisord) common(program, group string) map[string]text {
	return map[string]text{
		"here": literal(s.src.dir), "host_node_name": literal(s.host),
		"program_name": literal(program), "group_name": literal(group),
	}
}

// here returns the folder of the file that has the option.
func (s *supervisord) here(o option) text {
	if o.file == s.src.path {
		return literal(s.src.dir)
	}
	return literal(filepath.Dir(o.file))
}

// conversion matches a conversion of Python's operator %, with its name, flags, width and type.
var conversion = regexp.MustCompile(`^\(([^()]*)\)([-+ 0#]*)([0-9]{0,3})([sdi])`)

// expand replaces what begins with "%" as Python does: %(program_name)s, %(process_num)02d, %(ENV_HOME)s and %%.
func (s *supervisord) expand(value string, vars map[string]text) (text, error) {
	var t text
	for {
		before, after, found := strings.Cut(value, "%")
		t = append(t, literal(before)...)
		if !found {
			return t, nil
		}
		if strings.HasPrefix(after, "%") {
			t, value = append(t, char{r: '%'}), after[1:]
			continue
		}
		match := conversion.FindStringSubmatch(after)
		if match == nil {
			return nil, fmt.Errorf("a %% begins no expansion such as %%(program_name)s: supervisord refuses it")
		}
		part, err := s.value(match, vars)
		if err != nil {
			return nil, err
		}
		t, value = append(t, part...), after[len(match[0]):]
		if len(t) > maxText {
			return nil, errLong
		}
	}
}

func (s *supervisord) value(match []string, vars map[string]text) (text, error) {
	name, flags, width, kind := match[1], match[2], match[3], match[4]
	if variable, isVariable := strings.CutPrefix(name, "ENV_"); isVariable {
		if value, known := s.literals[variable]; known {
			return literal(value), nil
		}
		if !isName(variable) {
			return nil, fmt.Errorf("%%(%s)%s: no counterpart", name, kind)
		}
		ref, _ := s.src.variable(variable)
		return reference(ref), nil
	}
	value, known := vars[name]
	switch {
	case !known:
		return nil, fmt.Errorf("%%(%s)%s: no counterpart", name, kind)
	case flags+width == "" || value.refers(""):
		return value, nil
	}
	var n int
	if _, err := fmt.Sscanf(string(runes(value)), "%d", &n); err == nil && kind != "s" {
		return literal(fmt.Sprintf("%"+flags+width+"d", n)), nil
	}
	return literal(fmt.Sprintf("%"+strings.ReplaceAll(flags, "0", "")+width+"s", string(runes(value)))), nil
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// isName reports whether our file can have the name in ${NAME}.
func isName(s string) bool { return variableName.MatchString(s) }
