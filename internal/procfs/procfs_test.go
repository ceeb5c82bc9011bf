package procfs

import (
	"strings"
	"testing"
)

const statLine = "4711 (%s) S 1 4711 4710 0 -1 4194560 35 0 0 0 1 2 30 400 20 0 9 0 151241 1024 10 " +
	"18446744073709551615 1 2 3 4 5 6 7 8 9 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 140721 140733 768\n"

func TestParseStat(t *testing.T) {
	want := Stat{
		PID: 4711, PPID: 1, PGID: 4711, SID: 4710, State: 'S', Flags: 4194560, Threads: 9,
		StartTicks: 151241, EnvEnd: 140733, ExitCode: 768, CPUTicks: 433, ResidentPages: 10,
	}
	for _, name := range []string{"a", "", "a b", ") S 1 2 3", "((", "a\nb", "a)"} {
		got, err := ParseStat([]byte(strings.Replace(statLine, "%s", name, 1)))
		if err != nil || got != want {
			t.Errorf("command %q: %+v, %v, want %+v", name, got, err, want)
		}
	}
	for _, line := range []string{
		"", "4711", "4711 (a", "a (b) S 1", "4711 (a) S 1 2", ")(", "0" + statLine[4:], "-1" + statLine[4:],
		strings.Replace(statLine, " S ", " SS ", 1), strings.Replace(statLine, "151241", "x", 1),
		strings.TrimSuffix(statLine, " 768\n"),
	} {
		if got, err := ParseStat([]byte(line)); err == nil {
			t.Errorf("%q: %+v, want an error", line, got)
		}
	}
}

func TestLookupEnv(t *testing.T) {
	long := strings.Repeat("x", maxValue+1)
	for environ, want := range map[string]string{
		"A=1\x00HSU_WORKER_TOKEN=t\x00B=2\x00":             "t",
		"HSU_WORKER_TOKEN=t":                               "t",
		"HSU_WORKER_TOKEN=a=b\x00":                         "a=b",
		"HSU_WORKER_TOKEN=t\x00HSU_WORKER_TOKEN=u\x00":     "t",
		"XHSU_WORKER_TOKEN=x\x00HSU_WORKER_TOKEN=t\x00":    "t",
		"A=HSU_WORKER_TOKEN=x\x00":                         "",
		"HSU_WORKER_TOKENS=x\x00":                          "",
		"HSU_WORKER_TOKEN":                                 "",
		"HSU_WORKER_TOKEN=\x00":                            "",
		"HSU_WORKER_TOKEN=a b\x00":                         "",
		"HSU_WORKER_TOKEN=\x1b[31m\x00":                    "",
		"HSU_WORKER_TOKEN=" + long + "\x00":                "",
		"HSU_WORKER_TOKEN=" + long[1:] + "\x00":            long[1:],
		"":                                                 "",
		"title title title HSU_WORKER_TOKEN=x title title": "",
	} {
		if got, ok := LookupEnv([]byte(environ), "HSU_WORKER_TOKEN"); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v, want %q", environ, got, ok, want)
		}
	}
}

func TestUserOf(t *testing.T) {
	realUID, effective, err := UserOf([]byte("Name:\thsu\nUid:\t7\t990\t8\t9\nGid:\t5\t5\t5\t5\n"))
	if realUID != 7 || effective != 990 || err != nil {
		t.Errorf("UserOf = %d, %d, %v", realUID, effective, err)
	}
	for name, status := range map[string]string{
		"empty": "", "cut off": "Name:\thsu\nUid:\t0", "of another line": "Name:\thsu\nUid:\t0\nGid:\t1\t1\n",
		"no user": "Name:\thsu\n", "no number": "Name:\thsu\nUid:\t0\tx\n",
		"too large": "Name:\thsu\nUid:\t0\t4294967296\n",
	} {
		if _, effective, err := UserOf([]byte(status)); err == nil {
			t.Errorf("%s: user %d is in %q", name, effective, status)
		}
	}
}

func TestOwnNamespace(t *testing.T) {
	for status, want := range map[string]bool{
		"Name:\ta\nNSpid:\t12\nVmPeak:\t1":        true,
		"Name:\ta\nNSpid:\t4711\t12\nVmPeak:\t1":  false,
		"Name:\ta\nPid:\t12\n":                    true, // before Linux 4.1
		"Name:\ta\nNSpid:\t4711\t55\t1\nThreads:": false,
	} {
		if got := ownNamespace([]byte(status)); got != want {
			t.Errorf("ownNamespace(%q) = %v, want %v", status, got, want)
		}
	}
}
