//go:build e2e && linux

package units

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// root is the folder of the module.
const root = "../.."

// untested are the keys that no file of a test here has, each with the reason.
var untested = map[string]string{
	"unit.health.busy_limit": "TestSpinningProgramIsReplacedAfterItsBusyLimit sets it in the example of six programs",
}

// TestEachKeyHasATest compares the keys in docs/CONFIGURATION.md with the files that the tests of this package run.
func TestEachKeyHasATest(t *testing.T) {
	used := usedKeys(t)
	documented, pending := documentedKeys(t)
	for _, key := range documented {
		_, excused := covers(untested, key)
		switch {
		case used[key] && excused && untested[key] != "":
			t.Errorf("%s is used by a test: it needs no excuse", key)
		case used[key], excused, slices.ContainsFunc(pending, func(p string) bool { return under(key, p) }):
		default:
			t.Errorf("%s has no test in e2e/units: add one, or a reason to untested", key)
		}
	}
	for key := range untested {
		if !slices.Contains(documented, key) {
			t.Errorf("%s is no key", key)
		}
	}
}

// under reports whether key is other, or one of its keys.
func under(key, other string) bool { return key == other || strings.HasPrefix(key, other+".") }

// covers returns the entry of key or of a key above it.
func covers(reasons map[string]string, key string) (reason string, found bool) {
	for other, reason := range reasons {
		if under(key, other) {
			return reason, true
		}
	}
	return "", false
}

// documentedKeys returns the keys in the tables of the documentation, those of a unit with the prefix "unit.", and
// those that are not supported yet.
func documentedKeys(t *testing.T) (keys, pending []string) {
	content, err := os.ReadFile(filepath.Join(root, "docs/CONFIGURATION.md"))
	if err != nil {
		t.Fatal(err)
	}
	quoted := regexp.MustCompile("`([^`]+)`")
	row := regexp.MustCompile("^\\| `([^`]+)` \\|")
	section := ""
	for line := range strings.Lines(string(content)) {
		if title, found := strings.CutPrefix(line, "## "); found {
			section = strings.TrimSpace(title)
		}
		match := row.FindStringSubmatch(line)
		switch {
		case section == "Not yet":
			for _, m := range quoted.FindAllStringSubmatch(line, -1) {
				pending = append(pending, m[1])
			}
		case section == "Keys of the file" && match != nil:
			keys = append(keys, match[1])
		case section == "Keys of a unit" && match != nil:
			keys = append(keys, "unit."+match[1])
		}
	}
	if len(keys) < 90 {
		t.Fatalf("found only %d keys", len(keys))
	}
	for i, key := range pending {
		pending[i] = "unit." + key
	}
	return keys, pending
}

// usedKeys returns the keys in the files that the tests of this package and the example of six programs contain.
func usedKeys(t *testing.T) map[string]bool {
	used := map[string]bool{}
	texts := literals(t)
	examples, _ := filepath.Glob(filepath.Join(root, "examples/six/*.yaml"))
	for _, path := range examples {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	for _, text := range texts {
		var file map[string]any
		text = strings.NewReplacer("\n%s", "\n", "%s", "text", "%d", "1").Replace(text) // verbs of fmt
		if yaml.Unmarshal([]byte(text), &file) != nil {
			continue // a part of a file, or no YAML
		}
		for key, value := range file {
			switch units, isMap := value.(map[string]any); {
			case key == "units" && isMap:
				for _, unit := range units {
					collect(used, "unit", unit)
				}
			case key == "defaults":
				collect(used, "unit", value)
			case key == "service_options" && isMap:
				for _, options := range units {
					collect(used, "service_options.NAME", options)
				}
			}
			collect(used, "", map[string]any{key: value})
		}
	}
	return used
}

// collect adds the keys of a map, with those above them.
func collect(used map[string]bool, above string, value any) {
	fields, isMap := value.(map[string]any)
	if !isMap {
		return
	}
	for key, inner := range fields {
		if above != "" {
			key = above + "." + key
		}
		used[key] = true
		for _, check := range []string{"unit.readiness.", "unit.liveness."} {
			if field, found := strings.CutPrefix(key, check); found {
				used["unit.health."+field] = true // the same keys
			}
		}
		collect(used, key, inner)
	}
}

// literals returns the texts in the sources of this package that can be a file.
func literals(t *testing.T) (texts []string) {
	paths, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		source, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(source, func(n ast.Node) bool {
			if literal, isText := n.(*ast.BasicLit); isText && literal.Kind == token.STRING {
				if text, err := strconv.Unquote(literal.Value); err == nil && strings.Contains(text, "units:") {
					texts = append(texts, text)
				}
			}
			return true
		})
	}
	return texts
}
