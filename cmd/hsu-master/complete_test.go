package main

import (
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func TestComplete(t *testing.T) {
	state := filepath.Join(t.TempDir(), "st")
	if err := makeState([]string{state}); err != nil {
		t.Fatal(err)
	}
	for typed, want := range map[string][]string{
		"sta":                     {"status", "state"},
		"__":                      nil, // hidden
		"worker s":                {"start", "stop", "signal", "scale"},
		"worker --state-dir x li": {"list"},
		"nonsense ":               nil,
		"detach --no":             {"--no-wait"},
		"reload --no":             {"--no-wait"},
		"upgrade --no":            {"--no-wait"},
		"detach --timeout ":       nil, // a value, and no word of the command
		"detach -- --no":          nil,
		"completion ":             {"bash", "zsh", "fish"},
		"events --type log-":      {"log-fallback", "log-truncated", "log-deleted"},
		"events --type=run-m":     {"--type=run-missed"},
		"top --sort r":            {"restarts"},
		"completion bash ":        nil,
		"worker scale --state-dir=" + state + " ": {"worker="},
	} {
		words := strings.Split(typed, " ")
		var got []string
		last := len(words) - 1
		for _, c := range complete(t.Context(), newApp(io.Discard, io.Discard), words[:last], words[last]) {
			got = append(got, c.word)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", typed, got, want)
		}
	}
}

func TestNamesForArguments(t *testing.T) {
	known := names{workers: []string{"web-0"}, units: []string{"web"}, services: []string{"x.Y"}}
	for usage, want := range map[string][]string{
		"":                   nil,
		"ID":                 {"web-0"},
		"[ID|UNIT]...":       {"web-0", "web"},
		"UNIT=N":             {"web="},
		"SIGNAL ID|UNIT...":  {"web-0", "web"},
		"NAME [HOST:PORT]":   nil,
		"FILE":               nil,
		"a b":                {"b"},
		"FORMAT NAME":        {"x.Y"},
		"WORKER|UNIT|ID|all": {"web-0", "web", "web-0", "all"},
	} {
		var got []string
		at := 0
		if strings.Contains(usage, " ") {
			at = 1
		}
		for _, c := range known.ofArgument(&cli.Command{ArgsUsage: usage}, at) {
			got = append(got, c.word)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", usage, got, want)
		}
	}
}

// Every word of other programs leads to a command.
func TestSynonymsAreCommands(t *testing.T) {
	app := newApp(io.Discard, io.Discard)
	for word, name := range synonyms {
		named := func(name string) int { return len(commandsNamed(name, app.Name, app.Commands)) }
		if named(name) == 0 || named(word) > 0 {
			t.Errorf("%s: %s must be a command, and %[1]s none", word, name)
		}
	}
}
