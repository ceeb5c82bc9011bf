package rotate

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/leaks"
	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/logs/internal/logwriter"
	"github.com/core-tools/hsu-master/supervisor/logs/layout"
	"github.com/core-tools/hsu-master/supervisor/logs/offsets"
)

// This binary runs itself again as a writer of a log, or as a master that is killed during a rotation.
const (
	envRole   = "ROTATE_TEST_ROLE"
	envPath   = "ROTATE_TEST_PATH"
	envOffset = "ROTATE_TEST_OFFSET" // the writers write without O_APPEND
	envMoment = "ROTATE_TEST_MOMENT" // at which the master is killed
	envPower  = "ROTATE_TEST_POWER"  // with it the file system loses what it has not written to its disk
)

func TestMain(m *testing.M) {
	// Masters that are killed and started again are slower than a writer without pauses.
	logwriter.Main(line, 20)
	switch os.Getenv(envRole) {
	case "rotate":
		os.Exit(masterMain())
	case "tidy":
		os.Exit(tidyMain())
	}
	os.Exit(leaks.Run(m, os.Stderr))
}

// patience bounds every wait of a test. A wait normally takes far less.
const patience = time.Minute

// line returns the n-th line of a writer. It shows whether it is whole. Most are short, some cross blocks.
func line(writer string, n int) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	size := r.IntN(200)
	if n%97 == 0 {
		size = r.IntN(12 << 10)
	}
	b := fmt.Appendf(nil, "%s %d %s ", writer, n, strings.Repeat(string(rune('a'+n%26)), size))
	return fmt.Appendf(b, "%08x\n", crc32.ChecksumIEEE(b))
}

// parseLine returns the writer and the number of a line.
func parseLine(text []byte) (writer string, n int, err error) {
	fields := bytes.Fields(text)
	if len(fields) < 3 {
		return "", 0, fmt.Errorf("torn line %.100q", text)
	}
	writer = string(fields[0])
	if n, err = strconv.Atoi(string(fields[1])); err != nil || !bytes.Equal(line(writer, n), append(text, '\n')) {
		return "", 0, fmt.Errorf("torn line %.100q", text)
	}
	return writer, n, nil
}

// maxSize of the logs in these tests.
const maxSize = 32 << 10

// exits of a master.
const (
	exitNotReached = 3
	exitFailed     = 4
)

// masterMain rotates a log until it passes the moment, "name:n", for the nth time. It is killed there. Without a moment
// it recovers the log once, and rotates it if it is large.
func masterMain() int {
	moment := os.Getenv(envMoment)
	r := New(func(context.Context, Event) {}, &offsets.Tables{})
	r.steps = killing()
	l := Log{
		Path: os.Getenv(envPath), Policy: logs.Policy{MaxSize: maxSize, Keep: 1 << 20},
		AppendsOnly: func(context.Context) (bool, error) { return os.Getenv(envOffset) == "", nil },
	}
	w := &watch{path: l.Path}
	for began := time.Now(); time.Since(began) < patience; {
		if err := r.rotate(context.Background(), "w", l, w, folders{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return exitFailed
		}
		if moment == "" {
			return 0
		}
	}
	return exitNotReached
}

// killing returns steps at whose moment this process is killed.
func killing() steps {
	moment, count, _ := strings.Cut(os.Getenv(envMoment), ":")
	nth, _ := strconv.Atoi(count)
	return steps{at: func(passed string) {
		if passed != moment {
			return
		}
		if nth--; nth == 0 {
			if os.Getenv(envPower) != "" {
				losePower(filepath.Dir(os.Getenv(envPath)))
			}
			_ = unix.Kill(os.Getpid(), unix.SIGKILL)
			select {}
		}
	}}
}

// losePower makes a file system, ext4 or XFS, drop what it has in memory and write nothing more. What it finds when it
// is mounted again is what a loss of power would have left.
func losePower(dir string) {
	const (
		shutdown   = 0x8004587d // EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN
		noLogFlush = 2
	)
	d, err := os.Open(dir)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(d.Fd()), shutdown, noLogFlush)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "shut the file system down:", err)
		os.Exit(exitFailed)
	}
}

// tidyMain compresses rotated files and removes them, until it passes the moment.
func tidyMain() int {
	l := Log{Path: os.Getenv(envPath), Policy: logs.Policy{Keep: 3, Compress: true}}
	if err := tidy(context.Background(), l, killing()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitFailed
	}
	return exitNotReached
}

// again returns a command that runs this binary in a role.
func again(role, path string, env ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(append(os.Environ(), env...), envRole+"="+role, envPath+"="+path)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// writers are processes that write to a log at any time.
type writers struct {
	t     *testing.T
	path  string
	count int
	stops []func() (int, error)
	read  map[string]int // lines that were found, by writer
}

// startWriters creates a log and starts writers.
func startWriters(t *testing.T, path string, count int, offsets bool) *writers {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w := &writers{t: t, path: path, count: count, read: map[string]int{}}
	for i := range count {
		stop, err := logwriter.Writer{Path: path, Name: strconv.Itoa(i), Offsets: offsets}.Start()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = stop() })
		w.stops = append(w.stops, stop)
	}
	return w
}

// collect reads and removes the rotated files. Lines must follow those that were read before.
func (w *writers) collect() {
	w.t.Helper()
	files, err := layout.List(w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, rotated := range files.Rotated {
		content, err := contentOf(rotated)
		if err != nil {
			w.t.Fatal(err)
		}
		w.check(rotated.Path, content)
		if err := os.Remove(rotated.Path); err != nil {
			w.t.Fatal(err)
		}
	}
}

func contentOf(f layout.Rotated) ([]byte, error) {
	content, err := os.ReadFile(f.Path)
	if err != nil || !f.Compressed {
		return content, err
	}
	z, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

func (w *writers) check(path string, content []byte) {
	w.t.Helper()
	if len(content) > 0 && content[len(content)-1] != '\n' {
		w.t.Fatalf("%s does not end with a line", path)
	}
	lines := bufio.NewScanner(bytes.NewReader(content))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		writer, n, err := parseLine(bytes.Clone(lines.Bytes()))
		if err != nil {
			w.t.Fatalf("%s: %v", path, err)
		}
		if want := w.read[writer] + 1; n != want {
			w.t.Fatalf("%s: line %d of writer %s, want line %d", path, n, writer, want)
		}
		w.read[writer] = n
	}
}

// stop stops the writers and checks that every line is there, once, whole and in order.
func (w *writers) stop() {
	w.t.Helper()
	written := map[string]int{}
	for i, stop := range w.stops {
		n, err := stop()
		if err != nil {
			w.t.Fatalf("writer %d: %v", i, err)
		}
		written[strconv.Itoa(i)] = n
	}
	w.collect()
	content, parts := linesOf(w.t, w.path)
	if parts.Marker != nil {
		w.t.Errorf("the log has a marker: %+v", parts)
	}
	w.check(w.path, content)
	for writer, n := range written {
		if w.read[writer] != n || n == 0 {
			w.t.Errorf("writer %s has written %d lines, %d were found", writer, n, w.read[writer])
		}
	}
	if files, err := layout.List(w.path); err != nil || len(files.Copies) > 0 || len(files.Unfinished) > 0 {
		w.t.Errorf("left behind: %+v, %v", files, err)
	}
}

// linesOf returns the lines in a log.
func linesOf(t *testing.T, path string) ([]byte, layout.Parts) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	parts, err := layout.Find(f)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(io.NewSectionReader(f, parts.Lines, parts.Size-parts.Lines))
	if err != nil {
		t.Fatal(err)
	}
	return content, parts
}
