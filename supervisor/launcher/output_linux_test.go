package launcher

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/supervisor/logs"
)

// journald accepts streams and sends what each one gets, up to its end.
func journald(t *testing.T) (socket string, streams <-chan string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "stdout")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	got := make(chan string)
	go func() {
		defer close(got)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			text, _ := io.ReadAll(conn)
			_ = conn.Close()
			got <- string(text)
		}
	}()
	return socket, got
}

// A command of a worker writes where the worker does, and knows the stream of the journal that it writes to.
func TestOutputOfACommand(t *testing.T) {
	const script = `stat -Lc "$JOURNAL_STREAM is %d:%i" /proc/$$/fd/1; echo fault >&2`
	socket, streams := journald(t)
	for name, tt := range map[string]struct {
		to      logs.Target
		socket  string
		journal bool
	}{
		"file":            {logs.ToFile, socket, false},
		"journal":         {logs.ToJournal, socket, true},
		"missing journal": {logs.ToJournal, socket + ".missing", false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "logs")
			l := New(Options{
				LogDir: dir, StateDir: func() string { return "" }, Journal: tt.socket,
				Environ: append(os.Environ(), "JOURNAL_STREAM=8:1"), // of the master, and not of the command
			})
			ran, err := l.Run(t.Context(), Command{
				Path: "/bin/sh", Args: []string{"-c", script}, Dir: "/", Log: "search-0", LogTo: tt.to,
			}, "search-0/before", "token")
			if err != nil || !ran.Exit.Clean() {
				t.Fatalf("%+v, %v", ran, err)
			}
			text, err := os.ReadFile(logs.Path(dir, "search-0"))
			if tt.journal {
				if err == nil {
					t.Errorf("the file has %q", text)
				}
				text = []byte(strings.TrimPrefix(<-streams, "search-0\n\n6\n1\n0\n0\n0\n"))
			}
			first, rest, _ := strings.Cut(string(text), "\n")
			stream, inode, _ := strings.Cut(first, " is ")
			if known := stream == inode; rest != "fault\n" || known != tt.journal || stream == "8:1" {
				t.Errorf("the output is %q", text)
			}
		})
	}
}

// The variable of the master's own stream is for its workers too if they inherit the stream, and only then.
func TestInheritedOutput(t *testing.T) {
	for stream, want := range map[string]int{logs.JournalStream(os.Stderr): 1, "8:1": 0, "": 0} {
		var environ []string
		if stream != "" {
			environ = append(environ, "JOURNAL_STREAM="+stream)
		}
		l := New(Options{Environ: environ}).(*osLauncher)
		o, err := l.open("search-0", logs.ToInherit)
		if err != nil || o.out != os.Stdout || o.errors != os.Stderr || o.fallback != nil {
			t.Errorf("%+v, %v", o, err)
		}
		if len(o.env) != want || len(l.Environ) != 0 {
			t.Errorf("with JOURNAL_STREAM=%s the worker gets %q and %q", stream, l.Environ, o.env)
		}
	}
}
