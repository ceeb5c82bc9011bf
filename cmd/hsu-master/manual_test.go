package main

import (
	"io"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/urfave/cli/v2"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/top"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/history"
	"github.com/core-tools/hsu-master/supervisor/recovery"
)

// The man page documents every command and flag, no flag that does not exist, and the defaults of run.
func TestManualIsComplete(t *testing.T) {
	raw, err := os.ReadFile("../../docs/hsu-master.1")
	if err != nil {
		t.Fatal(err)
	}
	// Font changes may occur inside a phrase.
	manual := regexp.MustCompile(`(?m)^\.(BI|BR|B|IR|I|RI) |\\f.|["\\]`).ReplaceAllString(string(raw), "")
	manual = strings.Join(strings.Fields(manual), " ")

	flags := []string{"--help", "--version"}
	var walk func(path string, commands []*cli.Command)
	walk = func(path string, commands []*cli.Command) {
		for _, c := range commands {
			name := strings.TrimSpace(path + " " + c.Name)
			if c.Hidden {
				continue
			}
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

// Almost all commands have --json; the man page names the others.
func TestManualNamesTheCommandsWithoutJSON(t *testing.T) {
	raw, err := os.ReadFile("../../docs/hsu-master.1")
	if err != nil {
		t.Fatal(err)
	}
	_, others, _ := strings.Cut(string(raw), "\nAll commands accept\n")
	others, _, _ = strings.Cut(others, "\n.BR \"config show\"")
	var walk func(path string, commands []*cli.Command)
	walk = func(path string, commands []*cli.Command) {
		for _, c := range commands {
			name := strings.TrimSpace(path + " " + c.Name)
			group, _, _ := strings.Cut(name, " ")
			named := strings.Contains(others, name) || strings.Contains(others, " "+group+" ,") ||
				strings.Contains(others, ".B "+group+"\n") && name != "config show"
			json := slices.Contains(flagNames(c.Flags), "--json")
			if len(c.Subcommands) == 0 && !c.Hidden && json == named {
				t.Errorf("%s: --json %t, named as one without it %t", name, json, named)
			}
			walk(name, c.Subcommands)
		}
	}
	walk("", newApp(io.Discard, io.Discard).Commands)
}

// The man page has the default of every flag, and every exit code.
func TestManualHasDefaultsAndExitCodes(t *testing.T) {
	raw, err := os.ReadFile("../../docs/hsu-master.1")
	if err != nil {
		t.Fatal(err)
	}
	manual := regexp.MustCompile(`(?m)^\.(BI|BR|B|IR|I|RI) |\\f.|["\\]`).ReplaceAllString(string(raw), "")
	paragraphs := strings.Split(strings.Join(strings.Fields(manual), " "), ".TP ")
	leaves(newApp(io.Discard, io.Discard).Commands, func(c *cli.Command) {
		for _, f := range c.Flags {
			flag, value := "--"+f.Names()[0], defaultOf(f.(cli.DocGenerationFlag))
			if value == "" {
				continue
			}
			if !slices.ContainsFunc(paragraphs, func(p string) bool {
				return strings.Contains(p, flag) && strings.Contains(p, value)
			}) {
				t.Errorf("%s %s: the default %s is missing", c.Name, flag, value)
			}
		}
	})
	_, section, _ := strings.Cut(string(raw), "\n.SH EXIT STATUS\n")
	section, _, _ = strings.Cut(section, "\n.SH ")
	var got []string
	for _, found := range regexp.MustCompile(`(?m)^\.TP\n\.B (\d+)$`).FindAllStringSubmatch(section, -1) {
		got = append(got, found[1])
	}
	want := []string{
		strconv.Itoa(exit.Done), strconv.Itoa(exit.Failed), strconv.Itoa(exit.WrongUsage), strconv.Itoa(exit.NoMaster),
		strconv.Itoa(exit.Locked), strconv.Itoa(exit.Damaged),
	}
	if !slices.Equal(got, want) {
		t.Errorf("exit codes %q, want %q", got, want)
	}
}

// The command lines of the examples of the man page, and of the guide for operators, are valid.
func TestExamplesAreCommands(t *testing.T) {
	for _, path := range []string{"../../docs/hsu-master.1", "../../docs/OPERATING.md"} {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := regexp.MustCompile(`(?m)^(?:sudo )?hsu-master ([a-z].*?)(?: +#.*)?$`).
			FindAllStringSubmatch(strings.ReplaceAll(string(raw), `\-`, "-"), -1)
		if len(lines) < 10 {
			t.Errorf("%s has %d examples", path, len(lines))
		}
		for _, line := range lines {
			if _, err := reorder(newApp(io.Discard, io.Discard), strings.Fields(line[1])); err != nil {
				t.Errorf("%s: hsu-master %s: %v", path, line[1], err)
			}
		}
	}
}

// The man page documents every field of every JSON object, and no field that does not exist.
func TestManualHasEveryFieldOfTheJSON(t *testing.T) {
	raw, err := os.ReadFile("../../docs/hsu-master.1")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(raw), "\n.SH JSON\n")
	section, _, _ = strings.Cut(section, "\n.SH ")
	documented := map[string][]string{}
	for part := range strings.SplitSeq(section, "\n.SS ") {
		title, fields, _ := strings.Cut(strings.ReplaceAll(part, `\-`, "-"), "\n")
		for _, found := range regexp.MustCompile(`(?m)^\.TP\n\.B (\S+)\n\S`).FindAllStringSubmatch(fields, -1) {
			documented[title] = append(documented[title], found[1])
		}
	}
	printed := map[string][]string{}
	for title, object := range map[string]any{
		"state dump and status": stateJSON{}, "worker list": workersJSON{},
		"A worker": workerJSON{}, "Usage": usageJSON{}, "A check": healthJSON{}, "An exit": exitJSON{},
		"unit list, an array of these": unitSummaryJSON{},
		"worker start, stop, restart and signal, unit enable and disable, an object a line": actJSON{},
		"A unit": unitJSON{}, "A module": moduleJSON{}, "An API": apiJSON{},
		"service list": servicesJSON{}, "A service": serviceJSON{}, "An endpoint": endpointJSON{},
		"Figures": figuresJSON{}, "Latency": latencyJSON{},
		"service list --watch, an object a line": changeJSON{}, "state plan": plan{},
		"A decision": recovery.Decision{}, "Evidence": recovery.Evidence{},
		"Recorded": recovery.Recorded{}, "Found": recovery.Found{}, "Port": recovery.PortOwner{},
		"Hook":        recovery.HookRun{},
		"state check": checkJSON{}, "A problem": store.Problem{},
		"state backup": summaryJSON{}, "state restore": restoredJSON{},
		"state compact": compactedJSON{}, "state migrate": migrationJSON{},
		"call process-data": processedJSON{}, "call get-status": businessJSON{},
		"worker inspect": inspectJSON{}, "An inspection": inspectionJSON{}, "A past exit": pastExitJSON{},
		"A policy": policyJSON{}, "why": whyJSON{}, "An explanation": explanationJSON{},
		"top, an object a line": top.TableJSON{}, "A load": top.LoadJSON{},
		"config show, an array of these": settingJSON{}, "reload": reloadJSON{}, "A change": unitChangeJSON{},
		"events, an object a line": history.Line{}, "Event commands": commandsJSON{}, "An operator": history.Operator{},
		"worker logs, an object a line": logLineJSON{},
		"down and detach":               shutdownJSON{}, "worker scale": scaleJSON{}, "upgrade": upgradeJSON{},
		"ping": pingJSON{}, "version": versionJSON{},
	} {
		for field := range reflect.TypeOf(object).Fields() {
			if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" {
				printed[title] = append(printed[title], name)
			}
		}
	}
	inAnyOrder := cmpopts.SortSlices(strings.Compare)
	if diff := cmp.Diff(printed, documented, inAnyOrder); diff != "" {
		t.Errorf("the man page's JSON differs (-printed +documented):\n%s", diff)
	}
}
