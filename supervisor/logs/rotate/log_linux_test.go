package rotate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/logs/layout"
	"github.com/core-tools/hsu-master/supervisor/logs/offsets"
)

// once rotates a log that has any lines, in this process, and returns the parts that it has then.
func once(t *testing.T, l Log, sp space, st steps) (layout.Parts, error) {
	t.Helper()
	f, err := open(l, sp, st, &offsets.Table{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.close() }()
	p, err := f.recover(t.Context(), folders{})
	if err == nil {
		_, err = f.rotate(t.Context(), p, l.Policy.Keep >= 0)
	}
	if err != nil {
		return p, err
	}
	p, err = layout.Find(f.file)
	if err != nil {
		t.Fatal(err)
	}
	return p, nil
}

// checkLines checks that the lines up to last are there, in order.
func checkLines(t *testing.T, path string, last int) {
	t.Helper()
	w := &writers{t: t, path: path, read: map[string]int{}}
	w.stop()
	if w.read["0"] != last {
		t.Errorf("%d lines, want %d", w.read["0"], last)
	}
}

func allocated(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// Each rotation frees space, whatever frees it, and keeps every line. Tail reads the rest.
func TestRotate(t *testing.T) {
	onFileSystems(t, func(t *testing.T, dir string, frees method) {
		path := filepath.Join(dir, "w.log")
		f := create(t, path)
		next := 1
		for i := range 20 {
			next = fill(t, f, next, 200_000+int64(i)*777)
			p, err := once(t, Log{Path: path, AppendsOnly: always}, system, steps{})
			if err != nil {
				t.Fatal(err)
			}
			if (p.Size < 100_000) != (frees != punches) || p.Size-p.Lines > 100_000 {
				t.Errorf("after rotation %d: %+v", i, p)
			}
			if frees == punches && (p.First == 0 || p.Lines != p.First) || frees == collapses && p.Lines == 0 {
				t.Errorf("after rotation %d: %+v: another method", i, p)
			}
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
			if got := allocated(t, path); got > 150_000 {
				t.Errorf("after rotation %d the log takes %d bytes", i, got)
			}
			newest := string(line("0", next-1))
			if len(newest) > logs.TailSize {
				continue
			}
			if last := logs.Tail(path); len(last) == 0 || last[len(last)-1]+"\n" != newest {
				t.Errorf("Tail = %q, want line %d last", last, next-1)
			}
		}
		if n := len(rotated(t, path)); n != 20 {
			t.Errorf("%d rotated files, want 20", n)
		}
		checkLines(t, path, next-1)
	})
}

// A log that was punched for a writer without O_APPEND is collapsed once that is gone.
func TestPunchThenCollapse(t *testing.T) {
	onFileSystems(t, func(t *testing.T, dir string, frees method) {
		if frees != collapses {
			t.Skip("does not collapse")
		}
		path := filepath.Join(dir, "w.log")
		f := create(t, path)
		last := fill(t, f, 1, 300_000)
		p, err := once(t, Log{Path: path}, system, steps{})
		if err != nil || p.First < 200_000 {
			t.Fatalf("%+v, %v, want a hole", p, err)
		}
		last = fill(t, f, last, 300_000)
		if p, err = once(t, Log{Path: path, AppendsOnly: always}, system, steps{}); err != nil || p.Size > 100_000 {
			t.Fatalf("%+v, %v, want a short log", p, err)
		}
		checkLines(t, path, last-1)
	})
}

// XFS makes a hole before it collapses it, and a crash may come in between.
func TestInterruptedCollapse(t *testing.T) {
	onFileSystems(t, func(t *testing.T, dir string, frees method) {
		if frees != collapses {
			t.Skip("does not collapse")
		}
		path := filepath.Join(dir, "w.log")
		f := create(t, path)
		last := fill(t, f, 1, 300_000) - 1
		crash := errors.New("crash")
		interrupted := system
		interrupted.collapse = func(f *os.File, at, n int64) error {
			if at > 1<<30 {
				return system.collapse(f, at, n)
			}
			return errors.Join(system.punch(f, at, n), crash)
		}
		l := Log{Path: path, AppendsOnly: always}
		if _, err := once(t, l, interrupted, steps{}); !errors.Is(err, crash) {
			t.Fatal(err)
		}
		if content, _ := linesOf(t, path); bytes.Contains(content, []byte{0}) {
			t.Error("lines with NULs")
		}
		if p, err := once(t, l, system, steps{}); err != nil || p.Size > 100_000 {
			t.Errorf("%+v, %v, want a short log", p, err)
		}
		checkLines(t, path, last)
	})
}

// A file system may refuse to collapse the range only when asked for it, and lack punching too.
func TestFallsBack(t *testing.T) {
	refuse := func(*os.File, int64, int64) error { return unix.EINVAL }
	lack := func(*os.File, int64, int64) error { return unix.EOPNOTSUPP }
	for name, sp := range map[string]space{
		"from collapse to punch":    {collapse: refuse, punch: system.punch},
		"from collapse to truncate": {collapse: refuse, punch: lack},
		"to truncate":               {collapse: lack, punch: lack},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "w.log")
			f := create(t, path)
			next := 1
			for range 3 {
				next = fill(t, f, next, 100_000)
				if _, err := once(t, Log{Path: path, AppendsOnly: always}, sp, steps{}); err != nil {
					t.Fatal(err)
				}
			}
			if n := len(rotated(t, path)); n != 3 {
				t.Errorf("%d rotated files, want 3", n)
			}
			checkLines(t, path, next-1)
		})
	}
}

// What cannot be known about the writers is taken for one without O_APPEND.
func TestUnknownWriters(t *testing.T) {
	for name, appends := range map[string]func(context.Context) (bool, error){
		"nil":   nil,
		"fails": func(context.Context) (bool, error) { return true, errors.New("not permitted") },
		"no":    func(context.Context) (bool, error) { return false, nil },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "w.log")
			last := fill(t, create(t, path), 1, 100_000) - 1
			sp := system
			sp.collapse = func(f *os.File, at, n int64) error {
				if at < 1<<30 {
					t.Errorf("collapse(%d, %d)", at, n)
				}
				return system.collapse(f, at, n)
			}
			for range 2 { // the second finds a hole
				if _, err := once(t, Log{Path: path, AppendsOnly: appends}, sp, steps{}); err != nil {
					t.Fatal(err)
				}
			}
			checkLines(t, path, last)
		})
	}
}

// A line that is longer than the size stays whole and is rotated when it has ended.
func TestLongLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.log")
	f := create(t, path)
	l := Log{Path: path, AppendsOnly: always}
	long := strings.Repeat("long ", 100_000)
	for _, text := range []string{long, long, "\n"} {
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if _, err := once(t, l, system, steps{}); err != nil {
			t.Fatal(err)
		}
		if names := rotated(t, path); len(names) > 0 {
			t.Fatalf("rotated files %v, want none", names)
		}
	}
	if _, err := f.WriteString(strings.Repeat("short\n", 1000)); err != nil {
		t.Fatal(err)
	}
	if _, err := once(t, l, system, steps{}); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(layout.RotatedPath(path, 1))
	if err != nil || !strings.HasPrefix(string(content), long+long+"\nshort\n") {
		t.Errorf("%d bytes, %v", len(content), err)
	}
}

// A worker that writes no newlines, as a progress bar does, does not fill the disk, and loses nothing.
func TestLineWithoutEnd(t *testing.T) {
	lack := func(*os.File, int64, int64) error { return unix.EOPNOTSUPP }
	for name, sp := range map[string]space{
		"collapse": system,
		"punch":    {collapse: lack, punch: system.punch},
		"truncate": {collapse: lack, punch: lack},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "w.log")
			f := create(t, path)
			var want, got strings.Builder
			for i := range 2 {
				text := fmt.Sprintf("%d\n%s", i, strings.Repeat("50 %\r", logs.LongestLine/5+1))
				if _, err := f.WriteString(text); err != nil {
					t.Fatal(err)
				}
				want.WriteString(text)
				if _, err := once(t, Log{Path: path, AppendsOnly: always}, sp, steps{}); err != nil {
					t.Fatal(err)
				}
				if left := allocated(t, path); left > 1<<20 {
					t.Errorf("%d bytes are left in the log", left)
				}
			}
			for _, name := range rotated(t, path) {
				content, err := os.ReadFile(path + "." + name)
				if err != nil {
					t.Fatal(err)
				}
				got.Write(content)
			}
			rest, _ := linesOf(t, path)
			if got.Write(rest); got.String() != want.String() {
				t.Errorf("%d bytes are kept, want the %d written ones", got.Len(), want.Len())
			}
		})
	}
}

// Blank lines of a worker are lines.
func TestBlankLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.log")
	f := create(t, path)
	var want, got string
	for i := range 5 {
		text := strings.Repeat(fmt.Sprintf("\n \t \n%d\n", i), 5000)
		want += text
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if _, err := once(t, Log{Path: path, AppendsOnly: always}, system, steps{}); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(layout.RotatedPath(path, uint64(i+1)))
		if err != nil {
			t.Fatal(err)
		}
		got += string(content)
	}
	rest, _ := linesOf(t, path)
	if got += string(rest); got != want {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
}

func TestKeepNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.log")
	fill(t, create(t, path), 1, 300_000)
	l := Log{Path: path, AppendsOnly: always, Policy: logs.Policy{Keep: logs.KeepNone}}
	if p, err := once(t, l, system, steps{}); err != nil || p.Size-p.Lines > 100_000 {
		t.Errorf("%+v, %v, want a short log", p, err)
	}
	if names := rotated(t, path); len(names) > 0 {
		t.Errorf("rotated files %v, want none", names)
	}
}

// A program that truncates its log during a rotation loses lines, but finds no NULs and none of our texts in it.
func TestTruncatedDuringRotation(t *testing.T) {
	for _, p := range append(points(collapses), points(punches)...) {
		t.Run(string(p), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "w.log")
			f := create(t, path)
			fill(t, f, 1, 300_000)
			st := steps{at: func(moment string) {
				if moment == p.Before() {
					if err := f.Truncate(0); err != nil {
						t.Error(err)
					}
					if _, err := f.WriteString("after\n"); err != nil {
						t.Error(err)
					}
				}
			}}
			l := Log{Path: path}
			if p == crashpoint.LogBlank || p == crashpoint.LogBlankSync || p == crashpoint.LogCollapse {
				l.AppendsOnly = always
			}
			_, _ = once(t, l, system, st) // any error is one of that program
			_, _ = once(t, l, system, steps{})
			if content, _ := linesOf(t, path); string(content) != "after\n" {
				t.Errorf("the log is %.100q", content)
			}
			if files, err := layout.List(path); err != nil || len(files.Copies) > 0 {
				t.Errorf("left behind: %+v, %v", files, err)
			}
		})
	}
}
