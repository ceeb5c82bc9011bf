package config

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	referenceFile  = "../docs/CONFIGURATION.md"
	referenceBegin = "<!-- Made of the keys in package config: go test ./config -run TestReference -update -->\n"
)

// TestReference holds the tables of docs/CONFIGURATION.md current.
func TestReference(t *testing.T) {
	content, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	prose, tables, found := strings.Cut(string(content), referenceBegin)
	if !found {
		t.Fatalf("%s has no line %s", referenceFile, referenceBegin)
	}
	want := referenceTables()
	if *update {
		if err := os.WriteFile(referenceFile, []byte(prose+referenceBegin+want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, tables); diff != "" {
		t.Errorf("the tables differ (-want +documented), -update writes them:\n%s", diff)
	}
}

func referenceTables() string {
	var b strings.Builder
	b.WriteString("\n## Keys of the file\n\n| key | value | default | a change restarts | |\n|---|---|---|---|---|\n")
	fileRows(&b, "", new(File).keys(), live)
	fileRows(&b, "on_event.", new(OnEvent).keys(), live)
	fileRows(&b, "service_options.NAME.", new(ServiceOptions).keys(), restartsMaster)
	b.WriteString("\n## Keys of a unit\n\n" +
		"| key | value | default | kinds | a change restarts | |\n|---|---|---|---|---|---|\n")
	unitRows(&b, "", new(Unit).keys(), 0, live)
	return b.String()
}

func fileRows(b *strings.Builder, prefix string, keys []key, above change) {
	for _, k := range keys {
		takes := max(above, k.change)
		fmt.Fprintf(b, "| `%s%s` | %s | %s | %s | %s |\n",
			prefix, k.name, k.value.form().name, defaultText(k), takes, k.doc)
		if of, isObject := k.value.(fieldsValue); isObject && k.name != "defaults" {
			fileRows(b, prefix+k.name+".", of.keys, takes)
		}
	}
}

func unitRows(b *strings.Builder, prefix string, keys []key, above kinds, takesAbove change) {
	for _, k := range keys {
		kinds, takes := above, max(takesAbove, k.change)
		if k.kinds != 0 {
			kinds = k.kinds
		}
		fmt.Fprintf(b, "| `%s%s` | %s | %s | %s | %s | %s |\n",
			prefix, k.name, k.value.form().name, defaultText(k), kindsText(kinds), takes, k.doc)
		if of, isObject := k.value.(fieldsValue); isObject && !k.optional {
			unitRows(b, prefix+k.name+".", of.keys, kinds, takes)
		}
	}
}

func defaultText(k key) string {
	switch {
	case k.others != "":
		return fmt.Sprintf("`%s` for integrated units, else `%s`", k.def, k.others)
	case k.def != "":
		return "`" + k.def + "`"
	}
	return ""
}

func kindsText(k kinds) string {
	switch k {
	case started:
		return "integrated, managed"
	case managed, unmanaged, integrated:
		return string(kindName(k))
	default:
		return "all"
	}
}

// Each default is valid for each kind of unit, and each key has a description that fits a table.
func TestKeys(t *testing.T) {
	var check func(path string, keys []key)
	check = func(path string, keys []key) {
		seen := map[string]bool{}
		for _, k := range keys {
			name := path + k.name
			if seen[k.name] || k.doc == "" || strings.ContainsAny(k.doc, "|\n") || len(k.doc) > 130 {
				t.Errorf("%s: is given twice, or its description is missing, too long or does not fit a table", name)
			}
			seen[k.name] = true
			if of, isObject := k.value.(fieldsValue); isObject && k.name != "defaults" {
				check(name+".", of.keys)
			}
		}
	}
	check("", new(File).keys())
	check("units.", new(Unit).keys())
	check("service_options.", new(ServiceOptions).keys())
	for _, kind := range []kinds{0, integrated, managed, unmanaged} {
		setDefaults(new(Unit).keys(), kind)
	}
	setDefaults(new(ServiceOptions).keys(), 0)
}

// The schema has each key, and accepts each default.
func TestSchema(t *testing.T) {
	text, err := json.Marshal(Schema())
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	properties := func(of any) map[string]any { return of.(map[string]any)["properties"].(map[string]any) }
	units := properties(schema)["units"].(map[string]any)["additionalProperties"]
	var compare func(path string, keys []key, schema any)
	compare = func(path string, keys []key, schema any) {
		have := properties(schema)
		if len(have) != len(keys) {
			t.Errorf("%s: %d properties for %d keys", path, len(have), len(keys))
		}
		for _, k := range keys {
			property, found := have[k.name]
			if !found {
				t.Errorf("%s%s is not in the schema", path, k.name)
				continue
			}
			if nested := k.value.form().keys; nested != nil {
				compare(path+k.name+".", nested, property)
			}
		}
	}
	compare("", new(File).keys(), schema)
	compare("units.", new(Unit).keys(), units)
}
