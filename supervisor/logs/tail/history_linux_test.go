package tail

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/logs/layout"
)

// kept is a log of three instances whose first lines are in two rotated files, the older one compressed.
func kept(t *testing.T) (*host, Source) {
	t.Helper()
	h := newHost(t)
	s := h.source("web-0", "")
	for incarnation := range uint64(3) {
		h.start("web-0", incarnation+1)
		for n := range 3 {
			h.write(s.Path, fmt.Sprintf("%d.%d\n", incarnation+1, n))
		}
		if incarnation < 2 {
			if err := os.Rename(s.Path, layout.RotatedPath(s.Path, incarnation+1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	h.serve(logs.Policy{MaxSize: 1 << 20, Keep: 5, Compress: true}, true, s)
	for late := time.Now().Add(patience); len(glob(t, s.Path+".?.gz")) < 2; {
		if time.Now().After(late) {
			t.Fatal("the rotated files are not compressed")
		}
	}
	return h, s
}

// short returns a text with "start N" for the lines of starts, and blanks between its lines.
func short(text string) string {
	text = regexp.MustCompile(`\S+ web-0 incarnation (\d): started by hsu-master`).ReplaceAllString(text, "start-$1")
	return strings.Join(strings.Fields(text), " ")
}

func TestHistory(t *testing.T) {
	h, s := kept(t)
	first, second, third := "start-1 1.0 1.1 1.2", "start-2 2.0 2.1 2.2", "start-3 3.0 3.1 3.2"
	for name, test := range map[string]struct {
		q    Query
		want string
	}{
		"all":               {Query{Lines: -1}, first + " " + second + " " + third},
		"none":              {Query{}, ""},
		"last":              {Query{Lines: 1}, "3.2"},
		"of two files":      {Query{Lines: 5}, "2.2 " + third},
		"of all files":      {Query{Lines: 11}, "1.0 1.1 1.2 " + second + " " + third},
		"more than all":     {Query{Lines: 100}, first + " " + second + " " + third},
		"match":             {Query{Lines: -1, Match: regexp.MustCompile(`^.\.1$`)}, "1.1 2.1 3.1"},
		"last that match":   {Query{Lines: 2, Match: regexp.MustCompile(`^.\.1$`)}, "2.1 3.1"},
		"previous":          {Query{Lines: -1, Previous: true}, second},
		"last of previous":  {Query{Lines: 2, Previous: true}, "2.1 2.2"},
		"match of previous": {Query{Lines: 5, Previous: true, Match: regexp.MustCompile(`\.0`)}, "2.0"},
		"since long ago":    {Query{Lines: -1, Since: time.Unix(1, 0)}, first + " " + second + " " + third},
		"since the future":  {Query{Lines: -1, Since: time.Now().Add(time.Hour)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := h.read(test.q, s)
			if got := short(text); err != nil || got != test.want {
				t.Errorf("%q, %v, want %q", got, err, test.want)
			}
		})
	}
}

// Without a sight of the rotator, the times of starts and of files show which lines are older.
func TestSinceWithoutSights(t *testing.T) {
	h := newHost(t)
	now := time.Now().Truncate(time.Second)
	stamp := func(ago time.Duration, n int) string {
		at := now.Add(-ago).UTC().Format(time.RFC3339)
		return fmt.Sprintf("%s web-0 incarnation %d: started by hsu-master\n", at, n)
	}
	s := h.source("web-0", "2.1\n"+stamp(time.Hour, 3)+"3.0\n"+stamp(time.Minute, 4)+"4.0\n")
	old := layout.RotatedPath(s.Path, 1)
	h.write(old, "1.9\n"+stamp(3*time.Hour, 2)+"2.0\n")
	if err := os.Chtimes(old, time.Time{}, now.Add(-2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	for ago, want := range map[time.Duration]string{
		4 * time.Hour:             "1.9 start-2 2.0 2.1 start-3 3.0 start-4 4.0",
		150 * time.Minute:         "2.0 2.1 start-3 3.0 start-4 4.0",
		100 * time.Minute:         "2.1 start-3 3.0 start-4 4.0",
		time.Hour - time.Second:   "3.0 start-4 4.0",
		time.Minute:               "3.0 start-4 4.0",
		30 * time.Second:          "4.0",
		-2 * time.Hour:            "",
		2*time.Hour + time.Minute: "2.0 2.1 start-3 3.0 start-4 4.0",
	} {
		text, err := h.read(Query{Lines: -1, Since: now.Add(-ago)}, s)
		if got := short(text); err != nil || got != want {
			t.Errorf("since %s: %q, %v, want %q", ago, got, err, want)
		}
	}
}

// A sight tells how large the log was, within a rotated file too.
func TestSinceASight(t *testing.T) {
	h := newHost(t)
	s := h.source("web-0", "a\nb\n")
	table := h.hub.offsets.Of(s.Path)
	now := time.Now()
	table.See(now.Add(-time.Minute), 0, 2)
	table.See(now.Add(-time.Second), 0, 4)
	h.write(s.Path, "c\n")
	for ago, want := range map[time.Duration]string{2 * time.Minute: "a b c", 30 * time.Second: "b c", 0: "c"} {
		text, err := h.read(Query{Lines: -1, Since: now.Add(-ago)}, s)
		if got := short(text); err != nil || got != want {
			t.Errorf("since %s: %q, %v, want %q", ago, got, err, want)
		}
	}
}

func TestPreviousOfTheFirstInstance(t *testing.T) {
	h := newHost(t)
	s := h.source("web-0", "")
	h.start("web-0", 1)
	h.write(s.Path, "a\n")
	if text, err := h.read(Query{Lines: -1, Previous: true}, s); !errors.Is(err, ErrNoPrevious) || text != "" {
		t.Errorf("%q, %v, want %v", text, err, ErrNoPrevious)
	}
}

// A file of another kind in place of a log must not be read, and does not hide the logs of other workers.
func TestLogThatIsNoFile(t *testing.T) {
	h := newHost(t)
	fifo := Source{"fifo-0", logs.Path(h.dir, "fifo-0")}
	if err := unix.Mkfifo(fifo.Path, 0o600); err != nil {
		t.Fatal(err)
	}
	link := Source{"link-0", logs.Path(h.dir, "link-0")}
	if err := os.Symlink("/etc/passwd", link.Path); err != nil {
		t.Fatal(err)
	}
	text, err := h.read(Query{Lines: -1}, fifo, link)
	if !errors.Is(err, ErrUnreadable) ||
		!strings.Contains(text, "a FIFO") || !strings.Contains(text, "a symbolic link") {
		t.Errorf("%q, %v, want %v", text, err, ErrUnreadable)
	}
	text, err = h.read(Query{Lines: -1}, fifo, h.source("web-0", "a\n"), Source{"new-0", logs.Path(h.dir, "new-0")})
	if err != nil || !strings.HasSuffix(text, "\na\n") {
		t.Errorf("%q, %v", text, err)
	}
}

// A damaged rotated file does not hide the other lines.
func TestDamagedRotatedFile(t *testing.T) {
	h := newHost(t)
	s := h.source("web-0", "b\n")
	h.write(layout.RotatedPath(s.Path, 1), "a\n")
	h.write(layout.CompressedPath(layout.RotatedPath(s.Path, 2)), "no gzip")
	for _, q := range []Query{{Lines: -1}, {Lines: 5}} {
		text, err := h.read(q, s)
		if err != nil || !strings.HasPrefix(text, "a\n! ") || !strings.HasSuffix(text, "\nb\n") {
			t.Errorf("%q, %v", text, err)
		}
	}
}
