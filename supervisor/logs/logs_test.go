package logs

import (
	"errors"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"testing"
)

// The last lines of a worker are those since its last start, which has a line of its own.
func TestMarkStart(t *testing.T) {
	dir := t.TempDir()
	path := Path(dir, "worker-0")
	if err := MarkStart(dir, "worker-0", ToJournal, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file of a worker that writes to the journal: %v", err)
	}
	for i, step := range []struct {
		written string
		to      Target
		want    []string
	}{
		{"first\n", ToFile, []string{"first"}},
		{"second, cut", ToFile, []string{"second, cut"}},
		{"third\nfourth\n", ToFile, []string{"third", "fourth"}},
		{"", ToInherit, nil},
		{"fifth\n", ToFile, []string{"fifth"}},
	} {
		if err := MarkStart(dir, "worker-0", step.to, uint64(i)); err != nil {
			t.Fatal(err)
		}
		f, err := Open(dir, "worker-0")
		if err == nil {
			_, err = f.WriteString(step.written)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := Tail(path); !slices.Equal(got, step.want) {
			t.Errorf("after %q the last lines are %q, want %q", step.written, got, step.want)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	started := func(incarnation string) string {
		return `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ worker-0 incarnation ` + incarnation + ": started by hsu-master\n"
	}
	if want := regexp.MustCompile("^" + started("0") + "first\n" + started("1") + "second, cut\n" + started("2") +
		"third\nfourth\n" + started("3") + started("4") + "fifth\n$"); !want.Match(text) {
		t.Errorf("the log is\n%s", text)
	}
}
