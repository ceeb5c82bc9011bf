package config

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	times "github.com/core-tools/hsu-master/supervisor/schedule"
)

// Kind is the relation of the master to a unit.
type Kind string

// The values of Kind.
const (
	Integrated Kind = "integrated" // a gRPC server that takes its port from the master
	Managed    Kind = "managed"    // any program
	Unmanaged  Kind = "unmanaged"  // a process that something else starts
)

// setOf returns the set of one kind, or 0 if there is no such kind.
func setOf(k Kind) kinds {
	switch k {
	case Integrated:
		return integrated
	case Managed:
		return managed
	case Unmanaged:
		return unmanaged
	}
	return 0
}

// kindName returns the name of the one kind in a set.
func kindName(k kinds) Kind {
	switch k {
	case managed:
		return Managed
	case unmanaged:
		return Unmanaged
	default:
		return Integrated
	}
}

// MaxReplicas is how many replicas a unit can have.
const MaxReplicas = 1_000

// Unit describes a program and how it is run. Texts with placeholders are as in the file: see [placeholder.Expand].
type Unit struct {
	Name      string
	Kind      Kind
	Enabled   bool
	Replicas  int
	Schedule  string // five fields; "" means that the unit runs always
	Missed    Missed
	Essential bool

	Program  Program
	Routing  Routing
	Discover Discover // of an unmanaged unit
	Allow    []Verb   // the acts that are permitted on an unmanaged unit

	DependsOn []Dependency
	Health    Health // what Readiness and Liveness are if the file does not have them
	Readiness Health // decides about traffic
	Liveness  Health // decides about restarts

	Start         Start
	Restart       Restart
	Stop          Stop
	Update        Update
	Limits        Limits
	MemoryRestart Size // restart the worker if its family uses more; 0 means never
	Log           Log
}

// Routing is how calls reach the workers.
type Routing struct {
	Port Port
	// Services are those that the workers may offer. Nil means those that they report, an empty list none.
	Services []string
}

func (u *Unit) keys() []key {
	return slices.Concat(u.ownKeys(), u.programKeys(), u.policyKeys())
}

func (u *Unit) ownKeys() []key {
	return []key{
		{
			name: "kind", value: oneOf(&u.Kind, Integrated, Managed, Unmanaged), def: "integrated",
			change: restartsWorker,
			doc:    "a gRPC server that takes its port from the master, any program, or a process that others start",
		},
		{name: "enabled", value: yesNo(&u.Enabled), def: "true", doc: "whether the unit runs"},
		{
			name: "replicas", value: number(&u.Replicas, 0, MaxReplicas), def: "1", kinds: started,
			doc: "number of workers",
		},
		{
			name: "services", value: listOf(&u.Routing.Services, serviceName), kinds: started,
			doc: "services that the workers may offer; `[]` means none; without the key, those that they report",
		},
		{
			name: "port", value: port(&u.Routing.Port), def: "auto", others: "none", kinds: started,
			change: restartsWorker,
			doc: "`auto` is also the default of a managed unit that uses `{port}` or HSU_WORKER_PORT; " +
				"`announced`: the worker chooses it",
		},
		{
			name: "depends_on", value: dependenciesValue{&u.DependsOn}, kinds: started,
			doc: "units that must be started, ready or completed before this one starts",
		},
		{
			name: "schedule", value: schedule(&u.Schedule), kinds: managed,
			doc: "runs the unit at these times only: minute, hour, day of the month, month, day of the week",
		},
		{
			name: "missed", value: oneOf(&u.Missed, MissedSkip, MissedRunOnce), def: "skip", kinds: managed,
			doc: "what happens to runs that were due while no master ran",
		},
		{
			name: "discover", value: fields(&u.Discover), kinds: unmanaged,
			doc: "how the process is found: one of its keys",
		},
		{
			name: "allow", value: listOf(&u.Allow, verb), kinds: unmanaged,
			doc: "what the master may do with the process; `restart` needs `discover.systemd`",
		},
	}
}

// Missed is what happens to runs that were due while no master ran.
type Missed string

// The values of Missed.
const (
	MissedSkip    Missed = "skip"
	MissedRunOnce Missed = "run-once"
)

// Port is where a worker listens.
type Port struct {
	Mode   PortMode
	Number int // if Mode is PortFixed
}

// PortMode is the way in which the port of a worker is chosen.
type PortMode string

// The values of PortMode.
const (
	PortAuto      PortMode = "auto"
	PortFixed     PortMode = "fixed"
	PortNone      PortMode = "none"
	PortAnnounced PortMode = "announced"
)

func port(at *Port) value {
	const name = "auto, none, announced or a number from 1 to 65535"
	in := form{
		name: name, json: "integer", least: new(1.0), most: new(65535.0),
		words: []string{string(PortAuto), string(PortNone), string(PortAnnounced)},
	}
	return scalar[Port]{at: at, in: in, parse: func(s string) (Port, error) {
		if slices.Contains(in.words, s) {
			return Port{Mode: PortMode(s)}, nil
		}
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil || n == 0 {
			return Port{}, errors.New("must be " + name)
		}
		return Port{PortFixed, int(n)}, nil
	}}
}

func serviceName(at *string) value {
	const name = "the full name of a service such as pkg.Service"
	return scalar[string]{at: at, in: form{name: name, json: "string"}, parse: func(s string) (string, error) {
		return s, checkService(s)
	}}
}

// schedule is the times of a unit in the five fields of cron.
func schedule(at *string) value {
	const name = `five fields such as "0 3 * * *"`
	return scalar[string]{at: at, in: form{name: name, json: "string"}, parse: func(s string) (string, error) {
		if strings.Contains(s, "TZ=") {
			return "", errors.New("must not set a time zone: the file's key timezone does that")
		}
		if _, err := times.Parse(s, "UTC"); err != nil {
			return "", valueError{err}
		}
		return s, nil
	}}
}

// Condition is the state of a dependency that a unit waits for before it starts.
type Condition string

// The values of Condition.
const (
	Started   Condition = "started"
	Ready     Condition = "ready"
	Completed Condition = "completed" // ended with exit code 0
)

// Dependency is a unit that another one waits for.
type Dependency struct {
	Unit      string
	Condition Condition
}

type dependenciesValue struct{ at *[]Dependency }

func (dependenciesValue) form() form {
	items := oneOf(new(Condition), Started, Ready, Completed).form()
	return form{name: "a map from units to started, ready or completed", json: "object", items: &items}
}

func (v dependenciesValue) read(r *reader, n *node) {
	if n.kind == listNode || n.kind == textNode {
		r.fault(n, "must be a map such as {%s}", exampleOfDependencies(n))
		return
	}
	entries, _ := r.entries(n)
	for _, e := range entries {
		if ignored(e.name) {
			continue
		}
		d := Dependency{Unit: e.name}
		r.within(e.name, func() { oneOf(&d.Condition, Started, Ready, Completed).read(r, e.value) })
		*v.at = append(*v.at, d)
	}
}

// exampleOfDependencies returns the map for the units that were given in another form.
func exampleOfDependencies(n *node) string {
	var entries []string
	for _, item := range append([]*node{n}, n.items...) {
		if item.kind == textNode && nameFault(item.text) == "" {
			entries = append(entries, item.text+": ready")
		}
	}
	if text := strings.Join(entries, ", "); text != "" && len(text) <= maxShown {
		return text
	}
	return "db: ready"
}
