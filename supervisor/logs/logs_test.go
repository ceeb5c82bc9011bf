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
	if f, err := MarkStart(dir, "worker-0", ToJournal, 1); f != nil || err != nil {
		t.Fatal(f, err)
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
		f, err := MarkStart(dir, "worker-0", step.to, uint64(i))
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
	begin := `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ worker-0 incarnation `
	const end = ": started by hsu-master\n"
	want := regexp.MustCompile("^" + begin + "0" + end + "first\n" + begin + "1" + end + "second, cut\n" +
		begin + "2" + end + "third\nfourth\n" + begin + "3" + end + begin + "4" + end + "fifth\n$")
	if !want.Match(text) {
		t.Errorf("the log is\n%s", text)
	}
}
