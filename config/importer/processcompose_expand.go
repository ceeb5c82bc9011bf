package importer

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/core-tools/hsu-master/config"
)

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

// variable returns the value of a variable. The master does not know those of the .env file: they are left to a
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
