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
)

// journald takes one stream and sends what it gets, up to its end.
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
	// A program finds its output blocking: bit O_NONBLOCK, octal 4000, is not set.
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "grep flags /proc/$$/fdinfo/1 || echo flags: unknown; echo '<3>bad'")
	cmd.Stdout = stream
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if err := stream.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case text := <-got:
		header, lines, _ := strings.Cut(text, "search-0\n\n6\n1\n0\n0\n0\n")
		flags, rest, _ := strings.Cut(lines, "\n")
		if header != "" || rest != "<3>bad\n" {
			t.Errorf("the journal got %q", text)
		}
		if octal := strings.TrimSpace(strings.TrimPrefix(flags, "flags:")); len(octal) >= 4 &&
			strings.ContainsAny(octal[len(octal)-4:len(octal)-3], "4567") {
			t.Errorf("the program's output is not blocking: flags are %s", octal)
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
