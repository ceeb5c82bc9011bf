package config

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
	Systemd string // the name of a systemd unit
}

func (d *Discover) keys() []key {
	return []key{
		{name: "pid_file", value: filePath(&d.PIDFile), doc: "file whose first line is the PID"},
		{name: "process", value: fields(&d.Process), doc: "the process with this name and these arguments"},
		{
			name: "port", value: number(&d.Port, 1, 65535),
			doc: "the process that listens on this port of this host",
		},
		{name: "systemd", value: text(&d.Systemd), doc: "the main process of this systemd unit"},
	}
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
