package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"
)

// readEnvironment adds the variables of env_file to those of a unit. Faults name lines, never values.
func readEnvironment(r *reader, u *Unit, n *node) {
	list := n.get("env_file")
	if list.blank() || list.kind != listNode {
		return
	}
	variables := map[string]string{}
	for i, path := range u.Program.EnvFile {
		item := list.items[i]
		if path == "" {
			continue // it has a fault
		}
		r.within("env_file", func() {
			content, err := readTrusted(r.host, path)
			if err == nil {
				err = parseEnvFile(string(content), variables)
			}
			untrusted, isUntrusted := errors.AsType[untrustedError](err)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				hint := ""
				if strings.HasPrefix(item.text, "~") {
					hint = ": ~ is not replaced, use ${HOME}"
				}
				r.fault(item, "there is no file %s%s", r.quote(item), hint)
			case isUntrusted:
				r.fault(item, "%s", untrusted) // it names the folder or file
			case err != nil:
				r.fault(item, "%s: %s", r.quote(item), err)
			}
		})
	}
	maps.Copy(variables, u.Program.Environment)
	u.Program.Environment = variables
}

// untrustedError is the error of a file that others than root can change.
type untrustedError struct{ error }

func (e untrustedError) Unwrap() error { return e.error }

// readTrusted returns the content of a file whose values a root master uses.
func readTrusted(host Host, path string) ([]byte, error) {
	if err := host.CheckTrusted(path); err != nil {
		return nil, untrustedError{err}
	}
	return host.ReadFile(path)
}

// ParseEnvFile returns the variables of a file as env_file is read. The error names a line, never a value.
func ParseEnvFile(content string) (map[string]string, error) {
	variables := map[string]string{}
	return variables, parseEnvFile(content, variables)
}

// parseEnvFile adds the lines NAME=VALUE of a file to variables. Empty lines and those that begin with # are skipped,
// "export " before a name too. Quotes around a value are removed.
func parseEnvFile(content string, variables map[string]string) error {
	if len(content) > maxSize {
		return fmt.Errorf("the file has more than %d MiB", maxSize>>20)
	}
	line := 0
	for text := range strings.SplitSeq(strings.TrimPrefix(content, "\uFEFF"), "\n") {
		line++
		text = strings.TrimSpace(text)
		if text == "" || text[0] == '#' {
			continue
		}
		name, value, found := strings.Cut(strings.TrimPrefix(text, "export "), "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !found {
			return fmt.Errorf("line %d is not NAME=VALUE", line)
		}
		if err := checkVariable(name); err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
		if len(value) >= 2 && (value[0] == '"' || value[0] == '\'') {
			if value[len(value)-1] != value[0] {
				return fmt.Errorf("line %d: the quote is not closed", line)
			}
			value = value[1 : len(value)-1]
		}
		if err := checkText(value); err != nil {
			return fmt.Errorf("line %d: the value %w", line, err)
		}
		variables[name] = strings.ReplaceAll(value, "{", "{{") // it has no placeholders
	}
	return nil
}
