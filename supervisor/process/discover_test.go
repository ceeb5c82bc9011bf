package process

import (
	"slices"
	"strings"
	"testing"
)

func TestParsePIDFile(t *testing.T) {
	for _, tt := range []struct {
		content string
		want    int
		fault   string
	}{
		{"12", 12, ""},
		{"12\n", 12, ""},
		{"  12 \r\n", 12, ""},
		{"12\n/var/lib/postgresql\n1700000000\n5432\n", 12, ""},
		{"2147483647", 2147483647, ""},
		{"", 0, "it is empty"},
		{"\n12\n", 0, "it is empty"},
		{"0", 0, "not a PID"},
		{"-1", 0, "not a PID"},
		{"2147483648", 0, "not a PID"},
		{"12 13", 0, "not a PID"},
		{"0x12", 0, "not a PID"},
		{"pid", 0, "not a PID"},
		{"12\x00", 0, "not a PID"},
		{strings.Repeat("9", maxPIDFile), 0, "not a PID"},
	} {
		got, err := parsePIDFile([]byte(tt.content))
		faulty := tt.fault != ""
		if got != tt.want || faulty != (err != nil) || faulty && !strings.Contains(err.Error(), tt.fault) {
			t.Errorf("%.20q: %d, %v, want %d and %q", tt.content, got, err, tt.want, tt.fault)
		}
	}
}

func TestCommOf(t *testing.T) {
	for line, want := range map[string]string{
		"12 (sh) S 1":               "sh",
		"12 (a) (b) S 1":            "a) (b",
		"12 (with\nnewline) S 1 ()": "with\nnewline) S 1 (",
		"12 () S":                   "",
		"12":                        "",
		")(":                        "",
	} {
		if got := commOf([]byte(line)); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

func TestShownProgramIsNamed(t *testing.T) {
	const long = "a-name-of-twenty-two-x"
	for _, tt := range []struct {
		shown shownProgram
		name  string
		want  bool
	}{
		{shownProgram{comm: "redis-server"}, "redis-server", true},
		{shownProgram{comm: "redis-server"}, "redis", false},
		{shownProgram{comm: "MainThread", exe: "/usr/bin/node"}, "node", true},
		{shownProgram{comm: "MainThread", exe: "/usr/bin/node (deleted)"}, "node", true},
		{shownProgram{comm: "python3", args: []string{"python3", "job.py"}}, "job.py", false}, // its args say that
		{shownProgram{comm: long[:maxComm], args: []string{"/opt/" + long}}, long, true},
		{shownProgram{comm: long[:maxComm], args: []string{"/bin/sh", "./" + long}}, long, true},
		{shownProgram{comm: long[:maxComm], args: []string{"sh", "-e", long}}, long, false},
		{shownProgram{comm: long[:maxComm], args: []string{"/opt/" + long + "-other"}}, long, false},
		{shownProgram{comm: long[:maxComm]}, long[:maxComm], true},
		{shownProgram{comm: long[:maxComm], exe: "/opt/" + long}, long, true},
		{shownProgram{}, "x", false},
	} {
		if got := tt.shown.isNamed(tt.name); got != tt.want {
			t.Errorf("%+v is named %q: %t", tt.shown, tt.name, got)
		}
	}
}

func TestShownProgramHasArgs(t *testing.T) {
	shown := shownProgram{args: []string{"/usr/bin/python3", "-u", "job.py", "--port", "80"}}
	for _, tt := range []struct {
		wanted []string
		want   bool
	}{
		{nil, true},
		{[]string{"job.py"}, true},
		{[]string{"-u", "--port", "80"}, true},
		{[]string{"-u", "job.py", "--port", "80"}, true},
		{[]string{"80", "--port"}, false},
		{[]string{"job.py", "job.py"}, false},
		{[]string{"/usr/bin/python3"}, false}, // argument 0 is the program
		{[]string{"job"}, false},
		{[]string{"-u", "job.py", "--port", "80", "x"}, false},
	} {
		if got := shown.hasArgs(tt.wanted); got != tt.want {
			t.Errorf("has %q: %t", tt.wanted, got)
		}
	}
	if (shownProgram{}).hasArgs([]string{"x"}) || !(shownProgram{}).hasArgs(nil) {
		t.Error("without arguments")
	}
}

func TestUnrelated(t *testing.T) {
	// 1 ← 10 ← 11 ← 12, 1 ← 20, and 30 ↔ 31, which a changing table may show.
	parents := map[int]int{10: 1, 11: 10, 12: 11, 20: 1, 30: 31, 31: 30}
	parent := func(pid int) int { return parents[pid] }
	for _, tt := range []struct{ all, top []int }{
		{[]int{10}, []int{10}},
		{[]int{12, 10}, []int{10}},
		{[]int{12, 11}, []int{11}},
		{[]int{10, 20}, []int{10, 20}},
		{[]int{10, 11, 12, 20}, []int{10, 20}},
		{[]int{30, 10}, []int{30, 10}},
		{nil, nil},
	} {
		var all []match
		for _, pid := range tt.all {
			all = append(all, match{pid: pid})
		}
		top, below := unrelated(all, parent)
		var got []int
		for _, m := range top {
			got = append(got, m.pid)
		}
		if tt.all != nil && tt.all[0] == 30 { // it descends from itself; that must end, and keep the other
			if !slices.Contains(got, 10) {
				t.Errorf("%v: %v", tt.all, got)
			}
			continue
		}
		if !slices.Equal(got, tt.top) || len(top)+len(below) != len(all) {
			t.Errorf("%v: %v, want %v", tt.all, got, tt.top)
		}
	}
}

func TestPatternCheck(t *testing.T) {
	for _, tt := range []struct {
		p    Pattern
		text string
		ok   bool
	}{
		{Pattern{PIDFile: "/run/a.pid"}, "pid file /run/a.pid", true},
		{Pattern{Name: "a"}, "process a", true},
		{Pattern{Name: "a", Args: []string{"-b", "c"}}, "process a -b c", true},
		{Pattern{Port: 65535}, "port 65535", true},
		{Pattern{Systemd: "db.service"}, "systemd unit db.service", true},
		{Pattern{Systemd: "db.target"}, "systemd unit db.target", false},
		{Pattern{Systemd: "db.service", PIDFile: "p"}, "pid file p", false},
		{Pattern{}, "port 0", false},
		{Pattern{Port: 65536}, "port 65536", false},
		{Pattern{Port: -1}, "port -1", false},
		{Pattern{Name: "/bin/a"}, "process /bin/a", false},
		{Pattern{Port: 1, Args: []string{"a"}}, "port 1", false},
		{Pattern{Port: 1, Name: "a"}, "process a", false},
		{Pattern{PIDFile: "p", Port: 1}, "pid file p", false},
	} {
		if err := tt.p.Check(); (err == nil) != tt.ok || tt.p.String() != tt.text {
			t.Errorf("%+v: %v, %q", tt.p, err, tt.p)
		}
	}
}

func TestList(t *testing.T) {
	for n, want := range []string{"", "1", "1 and 2", "1, 2 and 3", "1, 2, 3 and 1 more", "1, 2, 3 and 2 more"} {
		var some []match
		for i := range n {
			some = append(some, match{pid: i + 1})
		}
		if got := list(some); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func FuzzPIDFile(f *testing.F) {
	f.Add([]byte("12\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		if pid, err := parsePIDFile(content); (err == nil) != (pid > 0) {
			t.Errorf("%q: %d, %v", content, pid, err)
		}
	})
}
