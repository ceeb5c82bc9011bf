package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Verb is something that a master may do with an unmanaged unit.
type Verb string

// The values of Verb.
const (
	VerbSignal  Verb = "signal"
	VerbStop    Verb = "stop"
	VerbRestart Verb = "restart"
)

func verb(at *Verb) value { return oneOf(at, VerbSignal, VerbStop, VerbRestart) }

// Discover is how the process of an unmanaged unit is found. One of the fields is set.
type Discover struct {
	PIDFile string
	Process ProcessMatch
	Port    int
	Systemd string // the name of a systemd service, with its suffix
}

func (d *Discover) keys() []key {
	return []key{
		{name: "pid_file", value: filePath(&d.PIDFile), doc: "file whose first line is the PID"},
		{name: "process", value: fields(&d.Process), doc: "the process with this name and these arguments"},
		{
			name: "port", value: number(&d.Port, 1, 65535),
			doc: "the process that listens on this port of this host",
		},
		{name: "systemd", value: systemdService(&d.Systemd), doc: "the main process of this systemd service"},
	}
}

func systemdService(at *string) value {
	return scalar[string]{
		at: at, use: plain, in: form{name: "the name of a systemd service", json: "string"}, parse: parseService,
	}
}

var (
	validService = regexp.MustCompile(`^[A-Za-z0-9:_.\\@-]+$`)
	otherUnit    = regexp.MustCompile(`\.(socket|device|mount|automount|swap|target|path|timer|slice|scope)$`)
)

// maxUnitName is the length of a unit's name that systemd allows: UNIT_NAME_MAX.
const maxUnitName = 255

// parseService returns the full name of a systemd service (systemd.unit(5)). Only a service has a main process.
func parseService(text string) (string, error) {
	const suffix = ".service"
	name := strings.TrimSuffix(text, suffix)
	switch {
	case name == "":
		return "", errors.New("must be the name of a service, such as postgresql")
	case otherUnit.MatchString(text):
		return "", errors.New("must be a service: other units of systemd have no main process")
	case !validService.MatchString(name) || name[0] == '@' || strings.Count(name, "@") > 1:
		return "", errors.New(`must be the name of a service: letters, digits and : _ . \ - with at most one @ inside`)
	case strings.HasSuffix(name, "@"):
		return "", fmt.Errorf("must be an instance such as %s1: %s is a template", name, name)
	case len(name)+len(suffix) > maxUnitName:
		return "", fmt.Errorf("must have at most %d characters, with %s", maxUnitName, suffix)
	}
	return name + suffix, nil
}

// ProcessMatch is the pattern by which a process is found.
type ProcessMatch struct {
	Name string
	Args []string // the process has all of them, in this order
}

func (m *ProcessMatch) keys() []key {
	return []key{
		{name: "name", value: text(&m.Name), doc: "name of the program"},
		{name: "args", value: listOf(&m.Args, text), doc: "arguments that the process must have, in this order"},
	}
}
