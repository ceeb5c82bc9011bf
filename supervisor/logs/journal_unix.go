//go:build unix

package logs

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// JournalSocket is the socket on which journald takes the output of programs.
const JournalSocket = "/run/systemd/journal/stdout"

const (
	// journalPatience bounds the wait for a journald that does not take connections.
	journalPatience = time.Second
	// journalBuffer is the size of the send buffer that systemd asks for. It lets a worker write on while journald is
	// busy or restarts.
	journalBuffer = 8 << 20
)

// OpenJournal connects to the journald that listens on socket, and returns a stream for the output of a program: each
// line that is written to it becomes an entry of the identifier. The stream belongs to the processes that hold it, and
// journald takes it over when it restarts.
func OpenJournal(socket, identifier string) (*os.File, error) {
	conn, err := net.DialTimeout("unix", socket, journalPatience)
	if err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	defer func() { _ = conn.Close() }() // the stream is a duplicate
	// The fields of systemd's own header: identifier, unit, priority, whether lines may begin with a priority, and
	// whether lines are forwarded to syslog, kmsg and the console. Without a unit, journald finds that of the writer.
	header := identifier + "\n" + "\n" + "6\n" + "1\n" + "0\n" + "0\n" + "0\n"
	stream := conn.(*net.UnixConn)
	if err = stream.SetDeadline(time.Now().Add(journalPatience)); err == nil {
		_, err = stream.Write([]byte(header))
	}
	if err == nil {
		err = stream.CloseRead() // journald sends nothing
	}
	if err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	_ = stream.SetWriteBuffer(journalBuffer) // as far as the kernel allows
	f, err := stream.File()
	if err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	// A program that finds its output not blocking loses lines.
	if err := syscall.SetNonblock(int(f.Fd()), false); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("make the journal's stream blocking: %w", err)
	}
	return f, nil
}

// JournalStream returns the value of $JOURNAL_STREAM for a stream of the journal: see systemd.exec(5). It is "" if f
// cannot be examined.
func JournalStream(f *os.File) string {
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}
