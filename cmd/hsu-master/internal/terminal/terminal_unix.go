//go:build linux || darwin

package terminal

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Terminal is a terminal on which a command redraws its output and reads single keys. Close restores it.
type Terminal struct {
	out     *os.File
	Keys    chan byte      // of the standard input, if that is a terminal
	Resized chan os.Signal // the size has changed, or the command continues after a stop

	saved   *unix.Termios // of the standard input, nil if it is none
	wake    *os.File      // closed to end the goroutine that reads keys
	reading sync.WaitGroup
}

// Open prepares the terminal that w writes to, and returns nil if w is none. Keys come without waiting for the
// end of a line, and are not echoed; those that send signals still do.
func Open(w io.Writer) (*Terminal, error) {
	if !Is(w) {
		return nil, nil
	}
	t := &Terminal{out: File(w), Keys: make(chan byte), Resized: make(chan os.Signal, 1)}
	signal.Notify(t.Resized, syscall.SIGWINCH, syscall.SIGCONT)
	if err := t.readKeys(); err != nil {
		t.Close()
		return nil, fmt.Errorf("prepare the terminal: %w", err)
	}
	fmt.Fprint(t.out, "\x1b[?25l") // hides the cursor
	return t, nil
}

// readKeys begins to read keys if the standard input is a terminal.
func (t *Terminal) readKeys() error {
	in := int(os.Stdin.Fd())
	saved, err := unix.IoctlGetTermios(in, ioctlGetTermios)
	if err != nil {
		return nil //nolint:nilerr // it is no terminal
	}
	wake, closed, err := os.Pipe()
	if err != nil {
		return err
	}
	t.saved, t.wake = saved, closed
	if err := t.RawKeys(); err != nil {
		_ = wake.Close()
		return err
	}
	done := int32(wake.Fd()) //nolint:gosec // a descriptor fits in 32 bits
	t.reading.Go(func() {
		defer func() { _ = wake.Close() }()
		for {
			fds := []unix.PollFd{
				{Fd: int32(in), Events: unix.POLLIN}, //nolint:gosec // likewise
				{Fd: done, Events: unix.POLLIN},
			}
			if _, err := unix.Poll(fds, -1); err == unix.EINTR {
				continue
			}
			var key [1]byte
			if fds[1].Revents != 0 || fds[0].Revents == 0 {
				return
			}
			if n, err := os.Stdin.Read(key[:]); n == 0 || err != nil {
				return
			}
			t.send(key[0], fds[1:])
		}
	})
	return nil
}

// send hands a key over, or drops it when the terminal is being closed.
func (t *Terminal) send(key byte, done []unix.PollFd) {
	for {
		select {
		case t.Keys <- key:
			return
		default:
		}
		const pause = 10 // milliseconds, while the table is being drawn
		if n, _ := unix.Poll(done, pause); n > 0 {
			return
		}
	}
}

// RawKeys has the terminal hand over each key at once.
func (t *Terminal) RawKeys() error {
	if t.saved == nil {
		return nil
	}
	raw := *t.saved
	raw.Lflag &^= unix.ICANON | unix.ECHO
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(int(os.Stdin.Fd()), ioctlSetTermios, &raw)
}

// Width returns the width of the terminal that w writes to, 0 if it is none.
func Width(w io.Writer) int {
	if !Is(w) {
		return 0
	}
	width, _ := sizeOf(File(w))
	return width
}

// Size returns the width and the height of the terminal.
func (t *Terminal) Size() (width, height int) { return sizeOf(t.out) }

func sizeOf(f *os.File) (width, height int) {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || ws.Col == 0 || ws.Row == 0 {
		return usualWidth, usualHeight
	}
	return int(ws.Col), int(ws.Row)
}

// Close ends the reading of keys and restores the terminal.
func (t *Terminal) Close() {
	signal.Stop(t.Resized)
	if t.wake != nil {
		_ = t.wake.Close()
		t.reading.Wait()
	}
	if t.saved != nil {
		_ = unix.IoctlSetTermios(int(os.Stdin.Fd()), ioctlSetTermios, t.saved)
	}
	fmt.Fprint(t.out, "\x1b[?25h")
}
