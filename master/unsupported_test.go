package master

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/config"
)

// pendingKeys are the keys that a version may accept in a file and not execute, each with a unit that has it. The name
// is that of the documentation.
var pendingKeys = map[string]string{
	"discover.systemd":          `{kind: unmanaged, discover: {systemd: a.service}}`,
	"allow":                     `{kind: unmanaged, discover: {port: 5432}, allow: [signal]}`,
	"type: notify":              `{kind: managed, command: [a], health: {type: notify}}`,
	"depends_on":                `{kind: managed, command: [a], depends_on: {other: started}}`,
	"schedule":                  `{kind: managed, command: [a], schedule: "0 3 * * *"}`,
	"essential":                 `{kind: managed, command: [a], essential: true}`,
	"user":                      `{kind: managed, command: [a], user: root}`,
	"group":                     `{kind: managed, command: [a], group: root}`,
	"umask":                     `{kind: managed, command: [a], umask: "0027"}`,
	"nice":                      `{kind: managed, command: [a], nice: 5}`,
	"capabilities":              `{kind: managed, command: [a], capabilities: []}`,
	"no_new_privileges":         `{kind: managed, command: [a], no_new_privileges: true}`,
	"start.before":              `{kind: managed, command: [a], start: {before: [b]}}`,
	"stop.command":              `{kind: managed, command: [a], stop: {command: [b]}}`,
	"stop.after":                `{kind: managed, command: [a], stop: {after: [b]}}`,
	"limits.open_files":         `{kind: managed, command: [a], limits: {open_files: 100}}`,
	"limits.core":               `{kind: managed, command: [a], limits: {core: 0}}`,
	"limits.memory":             `{kind: managed, command: [a], limits: {memory: 1GiB}}`,
	"limits.cpu":                `{kind: managed, command: [a], limits: {cpu: 1}}`,
	"limits.pids":               `{kind: managed, command: [a], limits: {pids: 10}}`,
	"memory_restart":            `{kind: managed, command: [a], memory_restart: 1GiB}`,
	"update.order: start-first": `{kind: managed, command: [a], update: {order: start-first}}`,
	"update.max_unavailable":    `{kind: managed, command: [a], update: {max_unavailable: 2}}`,
	"limits.enforce: required":  `{kind: managed, command: [a], limits: {enforce: required}}`,
}

// documentedPending returns the keys in the section "Not yet" of docs/CONFIGURATION.md, none if it has no such section.
func documentedPending(t *testing.T) []string {
	text, err := os.ReadFile("../docs/CONFIGURATION.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Not yet\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var keys []string
	for _, match := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(section, -1) {
		if key := match[1]; key != "config check" && key != "run" {
			keys = append(keys, key)
		}
	}
	return keys
}

// unitsOf returns the units of a file, or the error for what this version cannot execute.
func unitsOf(t *testing.T, unit string) error {
	path := filepath.Join(t.TempDir(), "hsu.yaml")
	text := "units:\n  other: {kind: managed, command: [a]}\n  it: " + unit + "\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	host := config.ThisHost()
	host.Root, host.CheckTrusted = true, func(string) error { return nil }
	file, err := config.Load(path, host)
	if err != nil {
		t.Fatalf("%s: %v", unit, err)
	}
	_, err = FileUnits(file)
	return err
}

// The documentation names the keys that are refused, and no others.
func TestDocumentationNamesTheKeysThatAreNotSupported(t *testing.T) {
	documented := documentedPending(t)
	for _, key := range documented {
		if _, known := pendingKeys[key]; !known {
			t.Errorf("docs/CONFIGURATION.md names %q as not supported yet: this test has no unit with it", key)
		}
	}
	for key, unit := range pendingKeys {
		err := unitsOf(t, unit)
		if refused, said := err != nil, slices.Contains(documented, key); refused != said {
			t.Errorf("%s: refused %t (%v), documented as not supported yet %t", key, refused, err, said)
		}
	}
}

// No key is refused that has no entry above: the units with all of the pending keys and the example with all keys are
// refused for these keys alone.
func TestAllRefusedKeysArePending(t *testing.T) {
	path := "../examples/units/hsu-master.yaml"
	host := config.ThisHost()
	host.CheckTrusted = func(string) error { return nil }
	host.Variable = func(string) (string, bool) { return "x", true }
	host.ReadFile = func(name string) ([]byte, error) {
		if name == path {
			return os.ReadFile(name)
		}
		return []byte("x=y"), nil
	}
	host.Glob = func(string) ([]string, error) { return nil, nil }
	host.Root = true
	host.User, host.Group = func(string) error { return nil }, func(string) error { return nil }
	file, err := config.Load(path, host)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := FileUnits(file); err != nil {
		t.Errorf("keys are refused that are no pending keys of this test: %v", err)
	}
}

// Faults that package config does not find are found here, so that "config check" accepts no file that a start refuses.
func TestFileUnitsChecksTheUnits(t *testing.T) {
	err := unitsOf(t, `{command: [a], services: [grpc.health.v1.Health]}`)
	if err == nil || !strings.HasPrefix(err.Error(), "unit it: service grpc.health.v1.Health") {
		t.Errorf("the error is %v, want the unit and its service", err)
	}
}
