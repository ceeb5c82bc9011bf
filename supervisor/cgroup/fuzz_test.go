package cgroup

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The tests compare the parsers with a plain parser of the same text.

func FuzzParseCPUStat(f *testing.F) {
	f.Add([]byte(cpuStat))
	f.Add([]byte("usage_usec 9223372036854775807\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		used, ok := parseCPUStat(text)
		if used < 0 || !ok && used != 0 {
			t.Errorf("%s, %t", used, ok)
		}
	})
}

func FuzzFolder(f *testing.F) {
	f.Add([]byte("0::/a\n"), []byte("30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"))
	f.Fuzz(func(t *testing.T, cgroups, mounts []byte) {
		dir, ok := folder(cgroups, mounts)
		if !ok {
			if dir != "" {
				t.Errorf("%q is not found", dir)
			}
			return
		}
		if dir == "" || dir != path.Clean(dir) {
			t.Errorf("folder %q", dir)
		}
		// The folder is that in which a cgroup2 mount shows the cgroup named last.
		cgroup := ""
		for line := range strings.SplitSeq(string(cgroups), "\n") {
			if name, found := strings.CutPrefix(line, "0::"); found {
				cgroup = name
			}
		}
		shows := func(line string) bool {
			before, after, found := strings.Cut(" "+strings.Join(strings.Fields(line), " ")+" ", " - ")
			fields := strings.Fields(before)
			if !found || len(fields) < 6 || !strings.HasPrefix(after, "cgroup2 ") {
				return false
			}
			root, point := unescapeMount(fields[3]), unescapeMount(fields[4])
			root = strings.TrimSuffix(root, "/")
			for i := range len(cgroup) + 1 {
				if cgroup[:i] == root && (cgroup[i:] == "" || cgroup[i] == '/') && dir == path.Join(point, cgroup[i:]) {
					return true
				}
			}
			return false
		}
		if !slices.ContainsFunc(strings.Split(string(mounts), "\n"), shows) {
			t.Errorf("%q is where none of these shows %q:\n%s", dir, cgroup, mounts)
		}
	})
}

func FuzzParseMembers(f *testing.F) {
	for _, text := range []string{"1\n4711\n", "0\n0\n12\n", "", "-1\n", "99999999999\n", "7"} {
		f.Add([]byte(text))
	}
	number := regexp.MustCompile(`^0*([1-9][0-9]{0,9})$`)
	f.Fuzz(func(t *testing.T, text []byte) {
		var want []int
		for field := range strings.FieldsSeq(string(text)) {
			if parts := number.FindStringSubmatch(field); parts != nil {
				if n, _ := strconv.Atoi(parts[1]); n < 1<<31 {
					want = append(want, n)
				}
			}
		}
		if got := parseMembers(text); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
}
