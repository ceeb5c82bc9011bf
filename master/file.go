package master

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/core-tools/hsu-master/config"
	"github.com/core-tools/hsu-master/supervisor/cgroup"
	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/probe"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/reactions"
	"github.com/core-tools/hsu-master/supervisor/services"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// FileUnits returns the units of a configuration file, for [Options] and [Master.Reload]. The error names the settings
// that no master can execute.
func FileUnits(f *config.File) ([]unit.Spec, error) {
	specs := make([]unit.Spec, 0, len(f.Units))
	var errs []error
	for i := range f.Units {
		spec := specOf(f, &f.Units[i])
		if err := spec.CheckFields(); err != nil {
			errs = append(errs, fmt.Errorf("unit %s: %w", spec.Name, err))
		}
		specs = append(specs, spec)
	}
	return specs, errors.Join(errs...)
}

// specOf returns the unit as the supervisor runs it. A zero time of the file is the shortest one there, because zero
// means the default.
func specOf(f *config.File, u *config.Unit) unit.Spec {
	if u.Kind == config.Unmanaged {
		return unmanagedOf(u)
	}
	spec := unit.Spec{
		Name: u.Name, Kind: unit.Kind(u.Kind), Replicas: u.Replicas, Port: portOf(u.Routing.Port),
		Dir:        u.Program.WorkingDir,
		Services:   u.Routing.Services,
		NoOthers:   len(u.Routing.Services) > 0,
		NoServices: u.Routing.Services != nil && len(u.Routing.Services) == 0,
		Start: unit.Start{
			Timeout: u.Start.Timeout, Settle: max(u.Start.Settle, 1), Before: u.Start.Before,
		},
		Stop: unit.Stop{
			Signal: unit.SignalNumber(string(u.Stop.Signal)), Grace: max(u.Stop.Grace, 1),
			Command: u.Stop.Command, After: u.Stop.After,
		},
		Log: logOf(&u.Log),
		Health: unit.Health{
			Readiness: checkOf(&u.Readiness), Liveness: checkOf(&u.Liveness), BusyLimit: orNever(u.Liveness.BusyLimit),
		},
		Restart: unit.RestartPolicy{
			Mode:         unit.RestartMode(u.Restart.Policy),
			Backoff:      max(u.Restart.Backoff.Initial, 1),
			Factor:       u.Restart.Backoff.Factor,
			RetryFailed:  orNever(u.Restart.RetryFailed),
			SuccessCodes: u.Restart.SuccessCodes,
			MaxBackoff:   max(u.Restart.Backoff.Max, 1),
			Budget:       unit.RestartBudget{Restarts: u.Restart.Budget.Restarts, Window: u.Restart.Budget.Within},
		},
	}
	spec.Essential, spec.MaxUnavailable = u.Essential, u.Update.MaxUnavailable
	spec.StartFirst = u.Update.Order == config.StartFirst
	spec.MemoryRestart = int64(u.MemoryRestart)
	if len(u.Program.Command) > 0 {
		spec.Path, spec.Args = u.Program.Command[0], u.Program.Command[1:]
	}
	for _, name := range slices.Sorted(maps.Keys(u.Program.Environment)) {
		spec.Env = append(spec.Env, name+"="+u.Program.Environment[name])
	}
	if u.Schedule != "" {
		spec.Schedule = unit.Schedule{Cron: u.Schedule, TimeZone: f.Timezone.String(), Missed: unit.Missed(u.Missed)}
	}
	if !u.Enabled {
		spec.Replicas, spec.Disabled = 0, true
	}
	for _, d := range u.DependsOn {
		spec.DependsOn = append(spec.DependsOn, unit.Dependency{Unit: d.Unit, Condition: unit.Condition(d.Condition)})
	}
	spec.Attributes, spec.Limits = attributesOf(u), limitsOf(&u.Limits)
	return spec
}

// attributesOf returns the user, the rights and the limits of the workers. Nice 0 of the file is that of the master.
func attributesOf(u *config.Unit) process.Attributes {
	p, l := &u.Program, &u.Limits
	a := process.Attributes{
		User: p.User, Group: p.Group, Nice: p.Nice, NoNewPrivileges: p.NoNewPrivileges,
		Umask: (*uint32)(p.Umask),
	}
	if !p.Capabilities.Keep {
		a.Capabilities = append([]string{}, p.Capabilities.List...)
	}
	if l.OpenFiles != nil {
		a.OpenFiles = new(uint64(*l.OpenFiles)) //nolint:gosec // config has checked that it is positive
	}
	if l.Core != nil {
		a.Core = new(uint64(*l.Core)) //nolint:gosec // config has checked that it is not negative
	}
	return a
}

// limitsOf returns the limits of the worker's cgroup.
func limitsOf(l *config.Limits) cgroup.Limits {
	limits := cgroup.Limits{Required: l.Enforce == config.Required}
	if l.Memory != nil {
		limits.Memory = int64(*l.Memory)
	}
	if l.CPU != nil {
		limits.CPU = *l.CPU
	}
	if l.PIDs != nil {
		limits.PIDs = *l.PIDs
	}
	return limits
}

// unmanagedOf returns a unit whose process something else starts.
func unmanagedOf(u *config.Unit) unit.Spec {
	d := &u.Discover
	spec := unit.Spec{
		Name: u.Name, Kind: unit.Unmanaged, Replicas: 1, Port: unit.NoPort, NoServices: true,
		Discover: process.Pattern{
			PIDFile: d.PIDFile, Name: d.Process.Name, Args: d.Process.Args, Port: d.Port, Systemd: d.Systemd,
		},
		Health: unit.Health{Readiness: checkOf(&u.Readiness), Liveness: checkOf(&u.Liveness)},
		Allow: unit.Allow{
			Signal: slices.Contains(u.Allow, config.VerbSignal), Stop: slices.Contains(u.Allow, config.VerbStop),
			Restart: slices.Contains(u.Allow, config.VerbRestart),
		},
	}
	if !u.Enabled {
		spec.Replicas = 0
	}
	return spec
}

// orNever returns a duration of the file, where 0 means never or none, as the supervisor has it, where 0 means the
// default.
func orNever(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

func logOf(l *config.Log) logs.Output {
	o := logs.Output{
		Policy: logs.Policy{MaxSize: int64(l.MaxSize), MaxAge: l.MaxAge, Keep: l.Keep, Compress: l.Compress},
	}
	if l.To != config.LogToFile {
		o.To = logs.Target(l.To)
	}
	if o.Keep == 0 {
		o.Keep = logs.KeepNone
	}
	return o
}

// checkOf returns the check as the supervisor makes it.
func checkOf(h *config.Health) probe.Spec {
	return probe.Spec{
		Type: probe.Type(h.Type), Service: h.Service, Address: h.Address, URL: h.URL, Status: h.Status,
		Headers: h.Headers, Command: h.Command,
		Policy: probe.Policy{
			Interval: h.Interval, Timeout: h.Timeout, Missed: h.Failures, Passes: h.Successes,
		},
	}
}

func portOf(p config.Port) unit.Port {
	switch p.Mode {
	case config.PortFixed:
		return unit.Port(p.Number)
	case config.PortNone:
		return unit.NoPort
	case config.PortAnnounced:
		return unit.AnnouncedPort
	case config.PortAuto:
	}
	return unit.AutoPort
}

// FilePolicies returns the policies for calls of services in a configuration file, for [Options].
func FilePolicies(f *config.File) map[string]services.Policy {
	policies := make(map[string]services.Policy, len(f.ServiceOptions))
	for _, o := range f.ServiceOptions {
		policies[o.Service] = services.Policy{
			Balance: services.Balance(o.Balance), Affinity: o.AffinityKey,
			MaxMessage: int(o.MaxMessage), MaxInFlight: o.MaxInFlight,
		}
	}
	return policies
}

// FileRules returns the commands for events of a configuration file, for [Options].
func FileRules(f *config.File) []reactions.Rule {
	rules := make([]reactions.Rule, 0, len(f.OnEvent))
	for _, e := range f.OnEvent {
		rules = append(rules, reactions.Rule{
			Types: e.Types, Units: e.Units, Run: e.Run, Dir: f.Dir(), User: e.User, Timeout: e.Timeout,
		})
	}
	return rules
}
