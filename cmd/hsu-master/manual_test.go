package main

import (
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// The man page has every command and flag, no flag that there is not, and the defaults of run.
func TestManualIsComplete(t *testing.T) {
	raw, err := os.ReadFile("../../docs/hsu-master.1")
	if err != nil {
		t.Fatal(err)
	}
	// Font changes within a line may stand in the middle of what belongs together.
	manual := regexp.MustCompile(`(?m)^\.(BI|BR|B|IR|I|RI) |\\f.|["\\]`).ReplaceAllString(string(raw), "")
	manual = strings.Join(strings.Fields(manual), " ")

	flags := []string{"--help"}
	var walk func(path string, commands []*cli.Command)
	walk = func(path string, commands []*cli.Command) {
		for _, c := range commands {
			name := strings.TrimSpace(path + " " + c.Name)
			if len(c.Subcommands) == 0 && !strings.Contains(manual, ".TP "+name+" ") {
				t.Errorf("%q has no entry", name)
			}
			for _, f := range c.Flags {
				flag := "--" + f.Names()[0]
				flags = append(flags, flag)
				if !regexp.MustCompile(flag + `\b[^-]`).MatchString(manual) {
					t.Errorf("%s: no word of %s", name, flag)
				}
			}
			walk(name, c.Subcommands)
		}
	}
	walk("", newApp(io.Discard, io.Discard).Commands)

	for _, flag := range regexp.MustCompile(`--[a-z][a-z-]*`).FindAllString(manual, -1) {
		if !slices.Contains(flags, flag) {
			t.Errorf("%s is no flag", flag)
		}
	}

	_, ofRun, _ := strings.Cut(manual, ".SH FLAGS OF RUN ")
	ofRun, _, _ = strings.Cut(ofRun, ".SH ")
	for _, f := range runFlags() {
		value := strings.Replace(f.(cli.DocGenerationFlag).GetValue(), "m0s", "m", 1)
		if value == "" || value == "false" {
			continue
		}
		paragraphs := strings.Split(ofRun, ".TP ")
		at := slices.IndexFunc(paragraphs, func(p string) bool { return strings.HasPrefix(p, "--"+f.Names()[0]+" ") })
		if at < 0 || !strings.Contains(paragraphs[at], value) {
			t.Errorf("--%s: the default %s is not said", f.Names()[0], value)
		}
	}
}
