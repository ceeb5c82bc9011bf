package placeholder

import "testing"

func TestExpand(t *testing.T) {
	values := map[string]string{Port: "8080", Unit: "search"}
	value := func(name string) (string, bool) {
		v, found := values[name]
		return v, found
	}
	for text, want := range map[string]string{
		"a": "a", "--port={port}": "--port=8080", "{unit}-{port}": "search-8080",
		"{{port}": "{port}", "{{{port}}": "{8080}",
	} {
		if got, err := Expand(text, value); got != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"{", "{}", "{nothing}", "a{port", "{ port }"} {
		if _, err := Expand(text, value); err == nil {
			t.Errorf("%s is expanded", text)
		}
	}
}

func TestIn(t *testing.T) {
	for text, want := range map[string]bool{
		"{port}": true, "--port={port}": true, "{unit}{port}": true, "{{{port}": true,
		"": false, "port": false, "{unit}": false, "{{port}": false, "{{{{port}": false, "{port": false,
	} {
		if got := In(text, Port); got != want {
			t.Errorf("%q: %t, want %t", text, got, want)
		}
	}
}
