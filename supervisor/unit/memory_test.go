package unit

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestSizeText(t *testing.T) {
	for bytes, want := range map[int64]string{
		0: "0B", 1023: "1023B", 1024: "1KiB", 480 << 20: "480MiB", 3 << 29: "1.5GiB", 1<<40 + 1: "1TiB",
		5 << 50: "5120TiB",
	} {
		if got := SizeText(bytes); got != want {
			t.Errorf("SizeText(%d) = %s, want %s", bytes, got, want)
		}
	}
}

func TestUnitsThatCannotHaveALimitOfMemory(t *testing.T) {
	for name, u := range map[string]Spec{
		"negative": {Name: "a", Path: "a", MemoryRestart: -1},
		"scheduled": {
			Name: "a", Path: "a", Kind: Managed, Port: NoPort, Schedule: Schedule{Cron: "0 3 * * *"}, MemoryRestart: 1,
		},
		"unmanaged": {Name: "a", Kind: Unmanaged, Port: NoPort, NoServices: true, MemoryRestart: 1},
	} {
		if err := u.CheckFields(); err == nil || !strings.Contains(err.Error(), "memory restart") {
			t.Errorf("%s: %v, want a fault of the limit", name, err)
		}
	}
	if err := (&Spec{Name: "a", Path: "a", MemoryRestart: 1}).CheckFields(); err != nil {
		t.Error(err)
	}
}

// A change of the limit restarts no worker.
func TestLimitOfMemoryIsALiveSetting(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	u, v := Spec{Name: "a", Path: self}, Spec{Name: "a", Path: self, MemoryRestart: 1}
	if start, live := u.Differences(&v); len(start) != 0 || !slices.Equal(live, []string{"memory_restart"}) {
		t.Errorf("Differences = %q, %q, want memory_restart live", start, live)
	}
	before, err := u.Hash()
	after, err2 := v.Hash()
	if err != nil || err2 != nil || before != after {
		t.Errorf("hashes %s, %s, %v, %v: want the same", before, after, err, err2)
	}
}
