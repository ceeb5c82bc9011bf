package systemd

import "testing"

func TestServiceOf(t *testing.T) {
	const system, user = "0::/system.slice/hsu-master.service\n",
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/shop.service\n"
	inService := Service{Unit: "hsu-master.service"}
	for name, test := range map[string]struct {
		executed, cgroups string
		want              Service
	}{
		"main process":           {"42", system, inService},
		"in a cgroup of its own": {"42", "0::/system.slice/hsu-master.service/master\n", inService},
		"of a user":              {"42", user, Service{Unit: "shop.service", User: true}},
		"version 1": {
			"42", "4:pids:/x.service\n1:name=systemd:/system.slice/hsu-master.service\n", inService,
		},
		"a child of the main one":   {"41", system, Service{}},
		"started by hand":           {"", system, Service{}},
		"a scope":                   {"42", "0::/user.slice/user-0.slice/session-1.scope\n", Service{}},
		"a user's manager, no unit": {"42", "0::/user.slice/user-1000.slice/user@1000.service/init.scope\n", Service{}},
		"no cgroup":                 {"42", "", Service{}},
	} {
		if got := serviceOf(42, test.executed, test.cgroups); got != test.want {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}
