package cgroup

import (
	"strings"
	"testing"
	"time"
)

const cpuStat = "usage_usec 1234567\nuser_usec 1000000\nsystem_usec 234567\n"

func TestParseCPUStat(t *testing.T) {
	for text, want := range map[string]time.Duration{
		cpuStat:                      1234567 * time.Microsecond,
		"nr_periods 0\nusage_usec 7": 7 * time.Microsecond,
		"usage_usec 0\n":             0,
	} {
		if got, ok := parseCPUStat([]byte(text)); !ok || got != want {
			t.Errorf("%q: %s, %t, want %s", text, got, ok, want)
		}
	}
	for _, text := range []string{
		"", "user_usec 7\n", "usage_usec\n", "usage_usec x\n", "usage_usec -1\n", "usage_usec 9223372036854775807\n",
	} {
		if got, ok := parseCPUStat([]byte(text)); ok {
			t.Errorf("%q: %s, want none", text, got)
		}
	}
}

func TestFolder(t *testing.T) {
	const mounts = "23 28 0:21 / /proc rw,relatime shared:14 - proc proc rw\n" +
		"30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
	tests := []struct{ name, cgroups, mounts, want string }{
		{"unified", "0::/system.slice/a.service\n", mounts, "/sys/fs/cgroup/system.slice/a.service"},
		{"root", "0::/\n", mounts, "/sys/fs/cgroup"},
		{
			"hybrid", "9:name=systemd:/\n4:memory:/x\n0::/a\n",
			strings.Replace(mounts, "/sys/fs/cgroup ", "/sys/fs/cgroup/unified ", 1), "/sys/fs/cgroup/unified/a",
		},
		{"legacy", "9:name=systemd:/\n4:memory:/x\n", mounts, ""},
		{"not mounted", "0::/a\n", "23 28 0:21 / /proc rw,relatime - proc proc rw\n", ""},
		{"part is mounted", "0::/outer/a\n", strings.Replace(mounts, " / /sys", " /outer /sys", 1), "/sys/fs/cgroup/a"},
		{"other part is mounted", "0::/outermost/a\n", strings.Replace(mounts, " / /sys", " /outer /sys", 1), ""},
		{"escaped", "0::/a\n", strings.Replace(mounts, "/sys/fs/cgroup ", `/my\040groups `, 1), "/my groups/a"},
		{"outside of the namespace", "0::/../a\n", mounts, ""},
		{"empty", "", "", ""},
	}
	for _, tt := range tests {
		got, ok := folder([]byte(tt.cgroups), []byte(tt.mounts))
		if got != tt.want || ok != (tt.want != "") {
			t.Errorf("%s: %q, %v, want %q", tt.name, got, ok, tt.want)
		}
	}
}
