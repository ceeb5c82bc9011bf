package unit

import "reflect"

// Differences returns the keys in which two units differ: those that a running process cannot follow, and those that
// apply at once. The number of replicas and the content of the executable are not among them.
func (u *Spec) Differences(v *Spec) (start, live []string) {
	for _, part := range []struct {
		key  string
		list *[]string
		a, b any
	}{
		{"kind", &start, u.Kind, v.Kind},
		{"command", &start, append([]string{u.Path}, u.Args...), append([]string{v.Path}, v.Args...)},
		{"working_dir", &start, u.Dir, v.Dir},
		{"environment", &start, u.Env, v.Env},
		{"port", &start, u.Port, v.Port},
		{"services", &live, []any{u.Services, u.NoOthers, u.NoServices}, []any{v.Services, v.NoOthers, v.NoServices}},
		{"health", &live, u.Health, v.Health},
		{"health", &start, u.notification(), v.notification()},
		{"start", &live, u.Start, v.Start},
		{"log", &live, u.Log.Policy, v.Log.Policy},
		{"log.to", &start, u.Log.To, v.Log.To},
		{"restart", &live, u.Restart, v.Restart},
		{"stop", &live, u.Stop, v.Stop},
		{"schedule", &live, u.Schedule.Cron, v.Schedule.Cron},
		{"missed", &live, u.Schedule.Missed, v.Schedule.Missed},
		{"timezone", &live, u.Schedule.TimeZone, v.Schedule.TimeZone},
		{"depends_on", &live, u.DependsOn, v.DependsOn},
		{"user", &start, u.Attributes.User, v.Attributes.User},
		{"group", &start, u.Attributes.Group, v.Attributes.Group},
		{"umask", &start, u.Attributes.Umask, v.Attributes.Umask},
		{"nice", &start, u.Attributes.Nice, v.Attributes.Nice},
		{"capabilities", &start, u.Attributes.Capabilities, v.Attributes.Capabilities},
		{"no_new_privileges", &start, u.Attributes.NoNewPrivileges, v.Attributes.NoNewPrivileges},
		{"limits.open_files", &start, u.Attributes.OpenFiles, v.Attributes.OpenFiles},
		{"limits.core", &start, u.Attributes.Core, v.Attributes.Core},
		{"limits.memory", &live, u.Limits.Memory, v.Limits.Memory},
		{"limits.cpu", &live, u.Limits.CPU, v.Limits.CPU},
		{"limits.pids", &live, u.Limits.PIDs, v.Limits.PIDs},
		{"limits.enforce", &live, u.Limits.Required, v.Limits.Required},
		{"memory_restart", &live, u.MemoryRestart, v.MemoryRestart},
		{"essential", &live, u.Essential, v.Essential},
		{"update", &live, []any{u.MaxUnavailable, u.StartFirst}, []any{v.MaxUnavailable, v.StartFirst}},
		{"discover", &live, u.Discover, v.Discover},
		{"allow", &live, u.Allow, v.Allow},
	} {
		if !reflect.DeepEqual(part.a, part.b) {
			*part.list = append(*part.list, part.key)
		}
	}
	return start, live
}
