//go:build linux || darwin

package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// terminal is a terminal on which a command redraws its output and reads single keys. close restores it.
type terminal struct {
	out     *os.File
	keys    chan byte      // of the standard input, if that is a terminal
	resized chan os.Signal // the size has changed, or the command continues after a stop

	saved   *unix.Termios // of the standard input, nil if it is none
	wake    *os.File      // closed to end the goroutine that reads keys
	reading sync.WaitGroup
}

// openTerminal prepares the terminal that w writes to, and returns nil if w is none. Keys come without waiting for the
// end of a line, and are not echoed; those that send signals still do.
func openTerminal(w io.Writer) (*terminal, error) {
	if !isTerminal(w) {
		return nil, nil
	}
	t := &terminal{out: asFile(w), keys: make(chan byte), resized: make(chan os.Signal, 1)}
	signal.Notify(t.resized, syscall.SIGWINCH, syscall.SIGCONT)
	if err := t.readKeys(); err != nil {
		t.close()
		return nil, fmt.Errorf("prepare the terminal: %w", err)
	}
	fmt.Fprint(t.out, "\x1b[?25l") // hides the cursor
	return t, nil
}

// readKeys begins to read keys if the standard input is a terminal.
func (t *terminal) readKeys() error {
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
	if err := t.rawKeys(); err != nil {
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
func (t *terminal) send(key byte, done []unix.PollFd) {
	for {
		select {
		case t.keys <- key:
			return
		default:
		}
		const pause = 10 // milliseconds, while the table is being drawn
		if n, _ := unix.Poll(done, pause); n > 0 {
			return
		}
	}
}

// rawKeys has the terminal hand over each key at once.
func (t *terminal) rawKeys() error {
	if t.saved == nil {
		return nil
	}
	raw := *t.saved
	raw.Lflag &^= unix.ICANON | unix.ECHO
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(int(os.Stdin.Fd()), ioctlSetTermios, &raw)
}

// terminalWidth returns the width of the terminal that w writes to, 0 if it is none.
func terminalWidth(w io.Writer) int {
	if !isTerminal(w) {
		return 0
	}
	width, _ := sizeOf(asFile(w))
	return width
}

// size returns the width and the height of the terminal.
func (t *terminal) size() (width, height int) { return sizeOf(t.out) }

func sizeOf(f *os.File) (width, height int) {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || ws.Col == 0 || ws.Row == 0 {
		return pageWidth, 24
	}
	return int(ws.Col), int(ws.Row)
}

// close ends the reading of keys and restores the terminal.
func (t *terminal) close() {
	signal.Stop(t.resized)
	if t.wake != nil {
		_ = t.wake.Close()
		t.reading.Wait()
	}
	if t.saved != nil {
		_ = unix.IoctlSetTermios(int(os.Stdin.Fd()), ioctlSetTermios, t.saved)
	}
	fmt.Fprint(t.out, "\x1b[?25h")
}
