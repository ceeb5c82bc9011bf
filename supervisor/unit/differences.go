package unit

import "reflect"

// Differences returns the keys in which two units differ: those that a running process cannot follow, and those that
// apply at once. The number of replicas and the content of the executable are not among them.
func (u Spec) Differences(v Spec) (start, live []string) {
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
		{
			"health", &live, []any{u.Readiness, u.Liveness, u.BusyLimit}, []any{v.Readiness, v.Liveness, v.BusyLimit},
		},
		{"start", &live, []any{u.StartTimeout, u.Settle}, []any{v.StartTimeout, v.Settle}},
		{"log", &live, u.Log, v.Log},
		{"restart", &live, u.Restart, v.Restart},
		{"discover", &live, u.Discover, v.Discover},
		{"stop", &live, []any{u.StopSignal, u.StopGrace}, []any{v.StopSignal, v.StopGrace}},
	} {
		if !reflect.DeepEqual(part.a, part.b) {
			*part.list = append(*part.list, part.key)
		}
	}
	return start, live
}
