//go:build unix

package logs

import (
	"bufio"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// journald takes one stream and sends its content, up to its end.
func journald(t *testing.T) (socket string, got <-chan string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "stdout")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	text := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return // the test has ended
		}
		defer func() { _ = conn.Close() }()
		all, _ := io.ReadAll(bufio.NewReader(conn))
		text <- string(all)
	}()
	return socket, text
}

func TestJournalGetsTheLinesOfAProgram(t *testing.T) {
	socket, got := journald(t)
	stream, err := OpenJournal(socket, "search-0")
	if err != nil {
		t.Fatal(err)
	}
	if s := JournalStream(stream); !strings.Contains(s, ":") {
		t.Errorf("JOURNAL_STREAM=%q", s)
	}
	raw, err := stream.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			if flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
				t.Errorf("a program finds its output with flags %#x (%v), want it blocking", flags, err)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "echo '<3>bad'")
	cmd.Stdout = stream
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if err := stream.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case text := <-got:
		if want := "search-0\n\n6\n1\n0\n0\n0\n<3>bad\n"; text != want {
			t.Errorf("the journal got %q, want %q", text, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the stream did not end with its holders")
	}
}

func TestJournalThatIsMissing(t *testing.T) {
	if f, err := OpenJournal(filepath.Join(t.TempDir(), "stdout"), "search-0"); err == nil {
		_ = f.Close()
		t.Error("a stream without a journal")
	}
}

func TestOutputValidate(t *testing.T) {
	for _, tt := range []struct {
		output Output
		valid  bool
	}{
		{Output{}, true},
		{Output{To: ToJournal}, true},
		{Output{To: ToInherit, Policy: Policy{MaxSize: 1}}, true},
		{Output{To: "file"}, false},
		{Output{To: ToJournal, Policy: Policy{MaxAge: -1}}, false},
		{Output{Policy: Policy{MaxSize: -1}}, false},
	} {
		if err := tt.output.Validate(); (err == nil) != tt.valid {
			t.Errorf("%+v: %v", tt.output, err)
		}
	}
}
