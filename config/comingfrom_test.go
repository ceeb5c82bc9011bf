package config

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

const comingFromFile = "../docs/COMING-FROM.md"

// Each key that docs/COMING-FROM.md names as ours exists, and so does each word that it gives as a value.
func TestComingFrom(t *testing.T) {
	content, err := os.ReadFile(comingFromFile)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]form{}
	var add func(prefix string, keys []key)
	add = func(prefix string, keys []key) {
		for _, k := range keys {
			known[prefix+k.name] = k.value.form()
			if of, isObject := k.value.(fieldsValue); isObject && k.name != "defaults" {
				add(prefix+k.name+".", of.keys)
			}
		}
	}
	add("", new(File).keys())
	add("", new(Unit).keys())
	word := regexp.MustCompile("`([^`]+)`")
	found := 0
	for i, line := range strings.Split(string(content), "\n") {
		columns := strings.Split(line, "|")
		if len(columns) != 5 { // tables of commands have one less
			continue
		}
		for _, match := range word.FindAllStringSubmatch(columns[2], -1) {
			name, value, hasValue := strings.Cut(match[1], ": ")
			form, exists := known[name]
			switch {
			case strings.HasPrefix(name, "{"): // a placeholder
				continue
			case !exists:
				t.Errorf("line %d: there is no key %s", i+1, name)
			case hasValue && !strings.Contains(form.name, value):
				t.Errorf("line %d: %s is not %s", i+1, value, form.name)
			}
			found++
		}
	}
	if found < 150 {
		t.Errorf("only %d keys are found: have the tables another form?", found)
	}
}
