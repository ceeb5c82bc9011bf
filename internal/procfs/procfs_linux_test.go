package procfs

import (
	"os"
	"slices"
	"testing"
)

func TestNumbers(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"1", "22", "x", "3x", "-4", "99999999999", "0", "."} {
		if name != "." {
			if err := os.Mkdir(dir+"/"+name, 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	buf := make([]byte, 64) // two records at a time
	found, err := Numbers(dir, &buf)
	slices.Sort(found)
	if want := []int{0, 1, 22}; err != nil || !slices.Equal(found, want) {
		t.Errorf("got %v, %v, want %v", found, err, want)
	}
}

func TestReadAllGrows(t *testing.T) {
	buf := make([]byte, 16)
	text, err := ReadAll("/proc/self/status", &buf)
	if err != nil || len(text) <= 16 || len(buf) < len(text) {
		t.Errorf("%d bytes, %v", len(text), err)
	}
}

func TestReadEnvironOfKernelThreadAndNobody(t *testing.T) {
	buf := GetBuffer()
	defer PutBuffer(buf)
	for _, pid := range []int{2, 1 << 30} { // kthreadd in the first namespace
		if s, err := ReadStat(pid); err == nil && !s.KernelThread() {
			continue
		}
		if _, state := ReadEnviron(pid, buf); state != EnvironNone && state != EnvironDenied {
			t.Errorf("environment of %d: state %d, want none", pid, state)
		}
	}
}

func TestHasOwnEnviron(t *testing.T) {
	self := os.Getpid()
	tests := map[string]struct {
		stat Stat
		want bool
	}{
		"child before execve": {Stat{PPID: self, EnvEnd: ownEnvEnd()}, false},
		"child inside execve": {Stat{PPID: self}, false},
		"child":               {Stat{PPID: self, EnvEnd: ownEnvEnd() + 8}, true},
		"other process":       {Stat{PPID: 1, EnvEnd: ownEnvEnd()}, true},
		"hidden process":      {Stat{PPID: 1}, true},
	}
	for name, tt := range tests {
		if got := HasOwnEnviron(tt.stat); got != tt.want {
			t.Errorf("%s: %t, want %t", name, got, tt.want)
		}
	}
}
