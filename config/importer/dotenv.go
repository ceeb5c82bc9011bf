package importer

import (
	"path/filepath"
	"strings"
)

// dotenv is the name of the file with variables that process-compose and foreman read.
const dotenv = ".env"

// dotenvOf returns the variables of the .env file beside the imported file, and whether there is one.
func dotenvOf(src *source) (variables map[string]string, found bool, err error) {
	if !src.exists(dotenv) {
		return nil, false, nil
	}
	content, err := src.readFile(filepath.Join(src.dir, dotenv))
	if err != nil {
		return nil, false, err
	}
	variables = map[string]string{}
	for line := range strings.SplitSeq(normalized(content), "\n") {
		name, value, isPair := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		if name = strings.TrimSpace(name); !isPair || strings.HasPrefix(name, "#") {
			continue
		}
		value = strings.TrimSpace(value)
		if last := len(value) - 1; last > 0 && value[0] == value[last] && (value[0] == '"' || value[0] == '\'') {
			value = value[1:last]
		}
		variables[name] = value
	}
	return variables, true, nil
}
