package rotate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/logs/layout"
	"github.com/core-tools/hsu-master/supervisor/logs/offsets"
)

func always(context.Context) (bool, error) { return true, nil }

// serve runs a rotator with one log until the test ends.
func serve(t *testing.T, l Log) (events chan Event, stop func()) {
	events = make(chan Event, 1000)
	r := New(func(_ context.Context, e Event) { events <- e }, &offsets.Tables{})
	r.Put("w", l)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.Serve(ctx) }()
	stop = func() {
		cancel()
		<-done
	}
	return events, stop
}

func next(t *testing.T, events <-chan Event, want Kind) Event {
	t.Helper()
	select {
	case e := <-events:
		if e.Kind != want {
			t.Fatalf("event %+v, want %d", e, want)
		}
		return e
	case <-time.After(patience):
		t.Fatalf("no event %d", want)
		return Event{}
	}
}

// A writer without a pause loses no line, and the policy holds for its rotated files. See TestKeepsUp for their size.
func TestServe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.log")
	f := create(t, path)
	policy := logs.Policy{MaxSize: 1 << 20, Keep: 3, Compress: true}
	events, stop := serve(t, Log{Path: path, Policy: policy, AppendsOnly: always})

	var written atomic.Int64
	ended, quit := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for n := 1; ; n++ {
			select {
			case <-quit:
				return
			default:
			}
			if _, err := f.Write(line("0", n)); err != nil {
				t.Error(err)
				return
			}
			written.Store(int64(n))
		}
	}()
	for range 20 {
		next(t, events, Rotated)
	}
	close(quit)
	<-ended
	stop()
	if err := tidy(t.Context(), Log{Path: path, Policy: policy}, steps{}); err != nil {
		t.Fatal(err)
	}
	files, err := layout.List(path)
	if err != nil || len(files.Rotated) != 3 || len(files.Copies)+len(files.Unfinished) > 0 {
		t.Fatalf("%+v, %v, want 3 rotated files", files, err)
	}
	var kept []byte
	for _, f := range files.Rotated {
		content, err := contentOf(f)
		if err != nil || !f.Compressed {
			t.Fatalf("%+v: %v, want a compressed file", f, err)
		}
		kept = append(kept, content...)
	}
	rest, _ := linesOf(t, path)
	kept = append(kept, rest...)
	lines := bytes.Split(bytes.TrimSuffix(kept, []byte("\n")), []byte("\n"))
	for i, text := range lines {
		want := int(written.Load()) - len(lines) + 1 + i
		if _, n, err := parseLine(text); err != nil || n != want {
			t.Fatalf("line %d, %v, want %d", n, err, want)
		}
	}
}

// A log does not outgrow its size by far, because a fast writer is looked at often. In a bubble, the load of the
// machine does not delay the looks.
func TestKeepsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, perMillisecond = 1 << 20, 50 << 10
		path := filepath.Join(t.TempDir(), "w.log")
		f := create(t, path)
		policy := logs.Policy{MaxSize: size, Keep: 1}
		events, stop := serve(t, Log{Path: path, Policy: policy, AppendsOnly: always})
		defer stop()
		lines := bytes.Repeat([]byte("line\n"), perMillisecond/len("line\n"))
		for n := 0; n < 20; {
			if _, err := f.Write(lines); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
			synctest.Wait()
			for ; len(events) > 0; n++ {
				limit := int64(size + 2*perMillisecond*fastest.Milliseconds())
				if n == 0 { // the log was empty until now
					limit = size + perMillisecond*idle.Milliseconds()
				}
				if e := next(t, events, Rotated); e.Bytes > limit {
					t.Errorf("%d bytes were rotated at once, want at most %d", e.Bytes, limit)
				}
			}
		}
	})
}

// A reader finds every line once, in order, while the log is rotated and compressed.
func TestCopyAllDuringRotation(t *testing.T) {
	onFileSystems(t, func(t *testing.T, dir string, frees method) {
		if frees == truncates {
			t.Skip("loses lines")
		}
		path := filepath.Join(dir, "w.log")
		f := create(t, path)
		policy := logs.Policy{MaxSize: 64 << 10, Keep: 1000, Compress: true}
		events, stop := serve(t, Log{Path: path, Policy: policy, AppendsOnly: always})
		defer stop()
		written := make(chan error, 1)
		go func() {
			var err error
			for n := 1; n <= 10_000 && err == nil; n++ {
				_, err = f.Write(line("0", n))
			}
			written <- err
		}()
		next(t, events, Rotated)
		for writing := true; writing; {
			select {
			case err := <-written:
				if err != nil {
					t.Fatal(err)
				}
				writing = false
			default:
			}
			var all bytes.Buffer
			if err := logs.CopyAll(&all, path); err != nil {
				t.Fatal(err)
			}
			content := all.Bytes()
			content = content[:bytes.LastIndexByte(content, '\n')+1] // a line that is being written
			w := &writers{t: t, path: path, read: map[string]int{}}
			w.check(path, content)
			if n := w.read["0"]; n == 0 || n != 10_000 && !writing {
				t.Errorf("%d lines", n)
			}
		}
	})
}

func create(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// fill writes lines of about size bytes, numbered from first, and returns the number of the next one.
func fill(t *testing.T, f *os.File, first int, size int64) int {
	t.Helper()
	for size > 0 {
		n, err := f.Write(line("0", first))
		if err != nil {
			t.Fatal(err)
		}
		size -= int64(n)
		first++
	}
	return first
}

func TestTruncatedByItsWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "w.log")
		f := create(t, path)
		events, stop := serve(t, Log{Path: path, AppendsOnly: always})
		defer stop()
		fill(t, f, 1, 100_000)
		time.Sleep(time.Minute + quickest/2) // between two looks
		info, err := f.Stat()
		if err == nil {
			err = f.Truncate(0)
		}
		if err != nil {
			t.Fatal(err)
		}
		fill(t, f, 1, 1000)
		time.Sleep(time.Minute)
		now, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if e := next(t, events, Truncated); e.Bytes != info.Size()-now.Size() || e.Worker != "w" || e.Path != path {
			t.Errorf("event %+v of %d bytes", e, info.Size()-now.Size())
		}
		// Another file is not a shorter one.
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		create(t, path)
		time.Sleep(time.Minute)
		if len(events) > 0 {
			t.Errorf("event %+v of a new log", <-events)
		}
	})
}

// A worker that writes nothing but NULs does not fill the disk, and its first line is found behind them.
func TestNothingButNULs(t *testing.T) {
	lack := func(*os.File, int64, int64) error { return unix.EOPNOTSUPP }
	for name, sp := range map[string]space{
		"collapse": system,
		"punch":    {collapse: lack, punch: system.punch},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "w.log")
			f := create(t, path)
			l := Log{Path: path, AppendsOnly: always, Policy: logs.Policy{MaxSize: 1 << 20, Keep: 1}}
			r := New(func(_ context.Context, e Event) { t.Errorf("event %+v", e) }, &offsets.Tables{})
			r.space = sp
			w := &watch{path: path}
			for range 5 {
				if _, err := f.Write(make([]byte, 3<<20)); err != nil {
					t.Fatal(err)
				}
				r.visit(t.Context(), "w", l, w, folders{})
				if left := allocated(t, path); left > 1<<20 {
					t.Errorf("%d bytes are left in the log", left)
				}
			}
			if _, err := f.WriteString("\x00text\n"); err != nil {
				t.Fatal(err)
			}
			r.visit(t.Context(), "w", l, w, folders{})
			if got, _ := linesOf(t, path); string(got) != "text\n" {
				t.Errorf("the log has %.100q", got)
			}
		})
	}
}

// A log that is deleted under its writer is reported once, until the writer has another one.
func TestDeletedUnderItsWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "w.log")
		create(t, path)
		var lost atomic.Bool
		events, stop := serve(t, Log{Path: path, AppendsOnly: always, Lost: lost.Load})
		defer stop()
		remove := func() {
			t.Helper()
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		for range 2 {
			lost.Store(true)
			remove()
			if e := next(t, events, Lost); e.Worker != "w" || e.Path != path {
				t.Errorf("event %+v", e)
			}
			create(t, path) // by another program
			remove()
			if len(events) > 0 {
				t.Errorf("event %+v of a log that was reported", <-events)
			}
			create(t, path) // by the next instance
			lost.Store(false)
			time.Sleep(time.Minute)
		}
		lost.Store(true) // not possible while the log is the same file: it is not asked
		time.Sleep(time.Minute)
		if len(events) > 0 {
			t.Errorf("event %+v of a log that is in place", <-events)
		}
	})
}

// A log may be removed between the look at it and its rotation.
func TestRemovedAfterTheLook(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.log")
	create(t, path)
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	r := New(func(_ context.Context, e Event) { t.Errorf("event %+v of a log that was removed", e) }, &offsets.Tables{})
	removing := func() bool { return os.Remove(path) == nil && false } // asked after the look, before the rotation
	w := &watch{path: path, info: info, lost: 1}
	if wait := r.visit(t.Context(), "w", Log{Path: path, Lost: removing}, w, folders{}); wait != fastest {
		t.Errorf("the next look is after %s, want %s", wait, fastest)
	}
}

// A full disk leaves the log as it is. It is reported once, and the log is rotated when there is space.
func TestFullDisk(t *testing.T) {
	dir := mountMemory(t, "tmpfs", "size=4m")
	if strings.HasPrefix(dir, "/dev/shm") {
		t.Skip("cannot limit a file system")
	}
	path := filepath.Join(dir, "w.log")
	f := create(t, path)
	last := fill(t, f, 1, 3<<20) - 1
	before, _ := linesOf(t, path)
	synctest.Test(t, func(t *testing.T) {
		events, stop := serve(t, Log{Path: path, Policy: logs.Policy{MaxSize: 2 << 20, Keep: 1}, AppendsOnly: always})
		defer stop()
		time.Sleep(time.Hour)
		synctest.Wait()
		if e := next(t, events, Failed); !errors.Is(e.Err, unix.ENOSPC) {
			t.Errorf("event %+v, want ENOSPC", e)
		}
		if len(events) > 0 {
			t.Errorf("event %+v, want none", <-events)
		}
		after, _ := linesOf(t, path)
		if !bytes.Equal(before, after) {
			t.Error("the log has changed")
		}
		if files, err := layout.List(path); err != nil || len(files.Copies)+len(files.Rotated) > 0 {
			t.Errorf("left behind: %+v, %v", files, err)
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=16m"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		next(t, events, Rotated)
	})
	w := &writers{t: t, path: path, read: map[string]int{}}
	w.stop()
	if w.read["0"] != last {
		t.Errorf("%d lines, want %d", w.read["0"], last)
	}
}

// A log is looked at often enough for its writer, and seldom if it has none.
func TestIntervals(t *testing.T) {
	p := logs.DefaultPolicy()
	for _, tt := range []struct {
		left   int64
		rate   float64
		policy logs.Policy
		want   time.Duration
	}{
		{10 << 20, 0, p, idle},
		{10 << 20, 1, p, 200 * time.Millisecond},
		{10 << 20, 100 << 20, p, 50 * time.Millisecond},
		{-1, 100 << 20, p, fastest},
		{0, -1, p, idle},
		{10 << 20, 0, logs.Policy{MaxSize: 4096}, idle},
		{10 << 20, 1, logs.Policy{MaxSize: 4096}, quickest},
		{1 << 40, 0, logs.Policy{MaxSize: 1 << 40}, idle},
		{1 << 62, 1e-300, logs.Policy{MaxSize: 1 << 62}, slowest},
	} {
		if got := untilFull(tt.left, tt.rate, tt.policy); got != tt.want {
			t.Errorf("untilFull(%d, %g, %d) = %s, want %s", tt.left, tt.rate, tt.policy.MaxSize, got, tt.want)
		}
	}
}

// rotated returns the rotated files of a log, without its path.
func rotated(t *testing.T, path string) (names []string) {
	t.Helper()
	files, err := layout.List(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files.Rotated {
		names = append(names, strings.TrimPrefix(f.Path, path+"."))
	}
	return names
}

func TestTidy(t *testing.T) {
	const hour = time.Hour
	tests := map[string]struct {
		policy logs.Policy
		files  []string // each an hour younger than the one before; the last is new
		want   string
	}{
		"none":               {logs.Policy{Keep: 5}, nil, "[]"},
		"fewer":              {logs.Policy{Keep: 5}, []string{"1", "2"}, "[1 2]"},
		"more":               {logs.Policy{Keep: 2}, []string{"8", "9.gz", "10"}, "[9.gz 10]"},
		"too old":            {logs.Policy{Keep: 9, MaxAge: 3 * hour / 2}, []string{"1", "2", "3"}, "[2 3]"},
		"keep none":          {logs.Policy{Keep: logs.KeepNone}, []string{"1.gz", "2"}, "[]"},
		"compress":           {logs.Policy{Keep: 2, Compress: true}, []string{"1", "2", "3"}, "[2.gz 3.gz]"},
		"compressed already": {logs.Policy{Keep: 2, Compress: true}, []string{"1.gz", "2", "2.gz"}, "[1.gz 2.gz]"},
		"both forms":         {logs.Policy{Keep: 2}, []string{"1.gz", "2", "2.gz"}, "[1.gz 2.gz]"},
		"age of both forms":  {logs.Policy{Keep: 2, MaxAge: hour / 2}, []string{"1", "1.gz"}, "[1.gz]"},
		"unfinished":         {logs.Policy{Keep: 2, Compress: true}, []string{"1.gz.tmp", "1"}, "[1.gz]"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "w.log")
			for i, name := range tt.files {
				file := path + "." + name
				if err := os.WriteFile(file, []byte("lines\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				age := hour * time.Duration(len(tt.files)-1-i)
				if err := os.Chtimes(file, time.Time{}, time.Now().Add(-age)); err != nil {
					t.Fatal(err)
				}
			}
			if err := tidy(t.Context(), Log{Path: path, Policy: tt.policy}, steps{}); err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(rotated(t, path)); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
			if files, _ := layout.List(path); len(files.Unfinished) > 0 {
				t.Errorf("left behind: %v", files.Unfinished)
			}
		})
	}
}

// A rotated file is removed when a policy is changed to keep fewer, and when it reaches its age although another log is
// rotated meanwhile.
func TestTidiesWithoutARotation(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		a, b := filepath.Join(dir, "a.log"), filepath.Join(dir, "b.log")
		for _, log := range []string{a, b} {
			for n := range uint64(3) {
				create(t, layout.RotatedPath(log, n+1))
				if err := os.Chtimes(layout.RotatedPath(log, n+1), time.Time{}, time.Now()); err != nil {
					t.Fatal(err)
				}
			}
		}
		want := func(when, ofA, ofB string) {
			t.Helper()
			synctest.Wait()
			if got := fmt.Sprint(rotated(t, a), rotated(t, b)); got != ofA+" "+ofB {
				t.Fatalf("%s: %s, want %s %s", when, got, ofA, ofB)
			}
		}
		r := New(func(_ context.Context, e Event) { t.Errorf("event %+v", e) }, &offsets.Tables{})
		put := func(log string, keep int) {
			r.Put(log, Log{Path: log, Policy: logs.Policy{Keep: keep, MaxAge: time.Hour}})
		}
		put(a, 3)
		put(b, 3)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go r.Serve(ctx)
		want("at the start", "[1 2 3]", "[1 2 3]")
		put(b, 2)
		want("after a change", "[1 2 3]", "[2 3]")
		for range 124 {
			time.Sleep(tidyInterval / 2)
			r.tidyUp(a)
		}
		want("after an hour", "[]", "[]")
	})
}

// A rotated file is compressed at once also if an earlier master began the rotation.
func TestTidiesWhatItCompletes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.log")
	synctest.Test(t, func(t *testing.T) {
		var lines strings.Builder
		for n := range 1000 {
			fmt.Fprintf(&lines, "line %d of those that are rotated\n", n)
		}
		if err := os.WriteFile(path, []byte(lines.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		l := Log{Path: path, Policy: logs.Policy{MaxSize: 8 << 10, Keep: 3, Compress: true}, AppendsOnly: always}
		fails := func(*os.File, int64, int64) error { return unix.EIO }
		if p, err := once(t, l, space{fails, fails}, steps{}); !errors.Is(err, unix.EIO) {
			t.Fatalf("a rotation that is not completed: %+v, %v", p, err)
		}
		r := New(func(_ context.Context, e Event) { t.Errorf("event %+v", e) }, &offsets.Tables{})
		r.Put("w", l)
		<-r.untidy // as after the look for files that were left uncompressed, at the start
		r.takeDirty()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go r.Serve(ctx)
		time.Sleep(tidyInterval / 2)
		synctest.Wait()
		compressed := layout.CompressedPath(layout.RotatedPath(path, 1))
		if _, err := os.Stat(compressed); err != nil {
			t.Errorf("%v; the rotated files are %v", err, rotated(t, path))
		}
	})
}

// A compressed file keeps its age.
func TestCompressedAge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.log")
	file := layout.RotatedPath(path, 1)
	if err := os.WriteFile(file, []byte("a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-time.Hour).Truncate(time.Second)
	if err := os.Chtimes(file, time.Time{}, at); err != nil {
		t.Fatal(err)
	}
	if err := tidy(t.Context(), Log{Path: path, Policy: logs.DefaultPolicy()}, steps{}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(layout.CompressedPath(file))
	if err != nil || !info.ModTime().Equal(at) || info.Mode() != 0o600 {
		t.Errorf("%v, %v, want one of %s", info, err, at)
	}
}

// One reading of the folder serves all logs, and the copies of each are found in it.
func TestFoldersAreReadOnce(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a.log"), filepath.Join(dir, "b.log")
	for _, log := range []string{a, b} {
		create(t, layout.CopyPath(log, 1))
	}
	read := folders{}
	for _, log := range []string{a, b} {
		files, err := read.beside(log)
		if want := []string{layout.CopyPath(log, 1)}; err != nil || !slices.Equal(files.Copies, want) {
			t.Errorf("beside %s: %v, %v, want %v", log, files.Copies, err, want)
		}
		create(t, layout.CopyPath(b, 2)) // after the reading
	}
	if len(read) != 1 {
		t.Errorf("%d folders are known, want 1", len(read))
	}
}
