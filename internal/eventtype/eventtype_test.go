package eventtype

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"
)

// Each constant of a type of events is in the list, and docs/EVENTS.md has exactly the list.
func TestEveryTypeIsListedAndDocumented(t *testing.T) {
	listed := map[string]bool{}
	rows := "| type | meaning |\n|---|---|\n"
	for _, e := range All {
		if listed[e.Name] {
			t.Errorf("%s is listed twice", e.Name)
		}
		listed[e.Name] = true
		rows += fmt.Sprintf("| `%s` | %s |\n", e.Name, e.Doc)
	}
	file, err := parser.ParseFile(token.NewFileSet(), "eventtype.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		if lit, ok := spec.Values[0].(*ast.BasicLit); ok {
			if name, err := strconv.Unquote(lit.Value); err != nil || !listed[name] {
				t.Errorf("%s %q is not in All", spec.Names[0].Name, name)
			}
		}
		return true
	})
	doc, err := os.ReadFile("../../docs/EVENTS.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(doc), rows) {
		t.Errorf("docs/EVENTS.md does not have the table\n%s", rows)
	}
}
