package unit

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/supervisor/probe"
)

// Setting is a key of the configuration and its value, for people.
type Setting struct{ Key, Value string }

// Settings returns the keys of the unit besides its name, its kind and its number of replicas, defaults included.
// Values of the environment and of headers are left out.
func (u *Spec) Settings() []Setting {
	var list []Setting
	add := func(key, value string) {
		if value != "" {
			list = append(list, Setting{key, value})
		}
	}
	if !u.Starts() {
		add("discover", u.Discover.String())
	} else {
		add("command", strings.Join(append([]string{u.Path}, u.Args...), " "))
		add("working_dir", u.Dir)
		add("environment", strings.Join(u.variables(), " "))
		add("port", u.portText())
	}
	if !u.NoServices {
		add("services", strings.Join(u.Services, " "))
	}
	for _, d := range u.DependsOn {
		add("depends_on."+d.Unit, string(d.Condition))
	}
	add("schedule", strings.TrimSpace(u.Schedule.Cron+" "+u.Schedule.TimeZone))
	if u.OneCheck() {
		add("health", checkText(u.Health.Readiness))
	} else {
		add("readiness", checkText(u.Health.Readiness))
		add("liveness", checkText(u.Health.Liveness))
	}
	if u.Starts() {
		list = append(list, u.processSettings()...)
	}
	return list
}

// processSettings returns the settings of a unit that the master starts.
func (u *Spec) processSettings() []Setting {
	r, s, a, l := u.Restart, u.Stop, u.Attributes, u.Limits
	restart := fmt.Sprintf("%s, %s within %s, backoff %s to %s", r.Mode, counted(r.Budget.Restarts, "restart"),
		shortDuration(r.Budget.Window), r.Backoff, r.MaxBackoff)
	if r.Mode == RestartNever {
		restart = string(r.Mode)
	}
	list := []Setting{
		{"restart", restart},
		{"start.timeout", u.Start.Timeout.String()},
		{"stop", fmt.Sprintf("%s, grace %s", identity.SignalName(s.Signal), s.Grace)},
		{"log.to", cmp.Or(string(u.Log.To), "file")},
	}
	for _, h := range []Hook{BeforeStart, AtStop, AfterEnd} {
		list = append(list, Setting{h.Key(), strings.Join(u.Command(h), " ")})
	}
	list = append(list, Setting{"user", a.User}, Setting{"group", a.Group})
	for _, n := range []struct {
		key  string
		set  bool
		text string
	}{
		{"limits.memory", l.Memory > 0, SizeText(l.Memory)},
		{"limits.cpu", l.CPU > 0, strconv.FormatFloat(l.CPU, 'g', -1, 64)},
		{"limits.pids", l.PIDs > 0, strconv.Itoa(l.PIDs)},
		{"memory_restart", u.MemoryRestart > 0, SizeText(u.MemoryRestart)},
		{"essential", u.Essential, "true"},
	} {
		if n.set {
			list = append(list, Setting{n.key, n.text})
		}
	}
	return slices.DeleteFunc(list, func(s Setting) bool { return s.Value == "" })
}

func (u *Spec) portText() string {
	switch u.Port {
	case AutoPort:
		return "auto"
	case NoPort:
		return ""
	case AnnouncedPort:
		return "announced"
	}
	return strconv.Itoa(int(u.Port))
}

func checkText(s probe.Spec) string {
	return fmt.Sprintf("%s each %s, %s in a row is unhealthy", s.Type, s.Interval, counted(s.Missed, "failure"))
}

// counted returns a number with its noun, such as "3 failures".
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
